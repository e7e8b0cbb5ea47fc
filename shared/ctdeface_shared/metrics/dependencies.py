"""Checks and metrics of disk, inbox and queue."""

import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from time import monotonic

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from ctdeface_shared.broker import open_broker
from ctdeface_shared.broker.protocols import Broker, Depth
from ctdeface_shared.errors import (
    BrokerUnavailable,
    ConfigurationError,
    CtDefaceError,
    StorageUnavailable,
)
from ctdeface_shared.metrics.probe import Check
from ctdeface_shared.settings.service import ServiceConfig
from ctdeface_shared.storage.disk import require_free_space

_QUICK_SECONDS = 1.0
"""A failure within this time is a stale connection and not an unreachable server."""


def new_registry() -> CollectorRegistry:
    """Return a registry with the metrics of process and build."""
    # Otherwise every counter has a second series with its time of creation.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped in the library
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info(
        "ctdeface_build", "Version of this program and of Python; always 1.", registry=registry
    )
    build.info({"version": metadata.version("ctdeface"), "python": platform.python_version()})
    return registry


def error_codes(root: type[CtDefaceError] = CtDefaceError) -> frozenset[str]:
    """Return the codes of all errors, for a metric label."""
    return frozenset({root.code}).union(*(error_codes(kind) for kind in root.__subclasses__()))


class Dependencies:
    """The checks of disk, inbox and queue of a service.

    The object and its connection to the queue belong to the probe's thread.
    """

    def __init__(
        self, service: ServiceConfig, registry: CollectorRegistry, *, counts_messages: bool
    ) -> None:
        """Register the metrics.

        Args:
            service: the service.
            registry: registry of the process.
            counts_messages: whether to export the number of messages; one process per queue does.
        """
        self._service = service
        self._broker: Broker | None = None
        self._free = Gauge(
            "ctdeface_disk_free_bytes",
            "Free space on the file system of a part of the spool.",
            ["place"],
            registry=registry,
        )
        self._up = Gauge(
            "ctdeface_queue_up", "1 while the queue can be reached.", registry=registry
        )
        text = (
            "Messages in the queue, by what they wait for; "
            "not shown while the queue cannot be reached."
        )
        self._messages = (
            Gauge("ctdeface_queue_messages", text, ["state"], registry=registry)
            if counts_messages
            else None
        )

    def checks(self) -> Mapping[str, Check]:
        """Return the checks by name."""
        return {"disk": self.disk, "inbox": self.inbox, "queue": self.queue}

    def disk(self) -> str | None:
        """Check the free space and measure it."""
        for place, folder in self._places().items():
            try:
                self._free.labels(place).set(shutil.disk_usage(folder).free)
            except OSError:
                self._free.remove(place)  # the last value is no longer true
        least = self._service.settings.output.min_free_gb
        try:
            require_free_space(self._service.spool.disk_places, least)
        except StorageUnavailable:
            return f"less than {least:g} GB are free (output.min_free_gb), so no new job begins"
        except OSError as error:
            return f"outbox, work or state folder cannot be reached: {error.strerror}"
        return None

    def inbox(self) -> str | None:
        """Check whether the inbox can be read."""
        try:
            with os.scandir(self._service.spool.inbox) as entries:
                next(entries, None)
        except OSError as error:
            return f"the inbox cannot be read: {error.strerror}"
        return None

    def queue(self) -> str | None:
        """Check whether the queue answers, and count its messages."""
        depth: Depth | None = None
        problem = None
        try:
            depth = self._depth()
        except BrokerUnavailable:
            problem = "the queue cannot be reached"
        except ConfigurationError:
            problem = (
                "the queue refuses the login, or is not set up correctly: "
                "run `ctdeface broker check`"
            )
        self._up.set(depth is not None)
        if self._messages is not None:
            self._show(self._messages, depth)
        return problem

    def close(self) -> None:
        """Close the connection to the queue."""
        if self._broker is not None:
            self._broker.close()

    def _depth(self) -> Depth:
        begun = monotonic()
        if self._broker is None:
            self._broker = open_broker(self._service.queue)
        try:
            return self._broker.depth()
        except BrokerUnavailable:
            if monotonic() - begun > _QUICK_SECONDS:
                raise
            return self._broker.depth()  # an idle connection breaks on its first use

    def _show(self, messages: Gauge, depth: Depth | None) -> None:
        messages.clear()
        if depth is None:
            return
        counts = {
            "ready": depth.ready,
            "held": depth.held,
            "delayed": depth.delayed,
            "dead": depth.dead,
        }
        for state, count in counts.items():
            if count is not None:
                messages.labels(state).set(count)

    def _places(self) -> dict[str, Path]:
        spool = self._service.spool
        return {
            "inbox": spool.inbox,
            "outbox": spool.outbox,
            "work": spool.work,
            "state": self._service.state_dir,
        }
