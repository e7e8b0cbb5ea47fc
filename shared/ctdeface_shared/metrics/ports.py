"""Ports of the metrics endpoints on this machine."""

import errno
import socket
from collections.abc import Iterator

from ctdeface_shared.settings.sections import OFF, MetricsSection


def metrics_ports(section: MetricsSection, workers: int) -> Iterator[tuple[str, int]]:
    """Yield the ports of watcher and workers with their settings keys.

    Args:
        section: the settings of the metrics.
        workers: number of worker processes on this machine, which use consecutive ports.
    """
    if section.watch_port != OFF:
        yield "metrics.watch_port", section.watch_port
    if section.work_port != OFF:
        for number in range(workers):
            yield "metrics.work_port", section.work_port + number


def is_free(host: str, port: int) -> bool:
    """Return False if another server listens at a port.

    The first address counts, as for the server itself, which reports other errors better.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        return getattr(error, "errno", None) != errno.EADDRINUSE
    return True
