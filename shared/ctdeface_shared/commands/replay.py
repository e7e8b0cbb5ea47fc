"""Do cases again: refused ones from the quarantine, released ones from the archive, or what the queue gave up.

The originals go back into the inbox, and a job of a higher generation is put into the queue. It
keeps the options of the job that it repeats but for those given here. The report of the earlier job
stays. Interrupted, it goes on when it is run again.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ctdeface_shared.commands.arguments import add_place
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctdeface_shared.broker.protocols import Broker
    from ctdeface_shared.jobs.replay_requests import ReplayRequest
    from ctdeface_shared.replay.case import Replay
    from ctdeface_shared.replay.request import ReplayOptions
    from ctdeface_shared.settings.service import ServiceConfig

EXAMPLES = """\
examples:
  ctdeface replay case-0001 --profile bulky                            one case, with another profile
  ctdeface replay --all --code VerificationFailed --segmenter geometric   every case that was refused for this
  ctdeface replay case-0001 --withhold 1.2.840.1.5                     without a series that holds it back
  ctdeface replay --dead                                               what the queue gave up
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "every case that was asked for is replayed",
    EXIT_REFUSED: "a case could not be replayed (its line says why), or queue or storage failed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "case", nargs="?", metavar="CASE", help="name of the case, relative to the inbox"
    )
    which.add_argument(
        "--all", action="store_true", help="every refused case, with --code those refused for this"
    )
    which.add_argument("--dead", action="store_true", help="every dead letter of the queue")
    parser.add_argument(
        "--code",
        metavar="CODE",
        help="with --all: only cases refused for this, such as VerificationFailed",
    )
    parser.add_argument("--profile", choices=("soft-tissue", "bulky"), help="another profile")
    parser.add_argument("--segmenter", metavar="NAME", help="another segmenter")
    parser.add_argument(
        "--fill", metavar="HOW", help="another fill value: air, p10 or a whole number of HU"
    )
    parser.add_argument(
        "--withhold",
        action="append",
        metavar="SERIES",
        help="leave this SeriesInstanceUID out; repeat it for more",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="also while a job of the case is on its way: the queue was lost",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(namespace: argparse.Namespace) -> int:
    """Replay what was asked for; 1 when something had to be left.

    Raises:
        ConfigurationError: the options do not fit each other, or there is no such spool.
    """
    from ctdeface_shared.broker import open_broker
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.settings.service import find_service

    wrong = _what_is_wrong(namespace)
    if wrong:
        raise ConfigurationError(wrong)
    service = find_service(namespace.config, namespace.spool, namespace.broker)
    if not service.spool.reports.is_dir():
        raise ConfigurationError(
            f"there is no service at {service.spool.reports.parent}: give its folder with --spool"
        )
    check_user(service.spool.reports)
    choices = _choices(namespace)
    service.prepare()
    broker = open_broker(service.queue)
    try:
        return _replay(namespace, service, broker, choices)
    finally:
        broker.close()


def check_user(reports: Path) -> None:
    """Keep root from making folders that the service's own user could not write: its jobs would be tried without end.

    Shares that give every file to one user are no such case, so a file is made to see whose it is.

    Args:
        reports: the service's folder of reports; whom it belongs to, the service runs as.

    Raises:
        ConfigurationError: what is made there belongs to root, and the folder to somebody else.
        StorageUnavailable: nothing can be made there, such as on a full disk.
    """
    from tempfile import NamedTemporaryFile

    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.storage import atomic

    owner = reports.stat().st_uid
    with atomic.storage_errors(), NamedTemporaryFile(dir=reports, prefix=".") as made:
        maker = Path(made.name).stat().st_uid
    if maker == 0 and owner != 0:
        raise ConfigurationError(
            f"the service's user {owner} could not write what root makes here: run it as that user, with sudo -u '#{owner}'"
        )


def _what_is_wrong(namespace: argparse.Namespace) -> str:
    if namespace.code and not namespace.all:
        return "--code goes with --all"
    if namespace.withhold and not namespace.case:
        return "--withhold goes with one case: a series lies in one case only"
    return ""


def _choices(namespace: argparse.Namespace) -> "ReplayOptions":
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.jobs.options import FillRule, Profile
    from ctdeface_shared.replay.request import ReplayOptions

    try:
        fill = FillRule.parse(namespace.fill) if namespace.fill else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    profile = Profile(namespace.profile) if namespace.profile else None
    return ReplayOptions(
        profile=profile, segmenter=namespace.segmenter, fill=fill, withhold=namespace.withhold
    )


def _replay(
    namespace: argparse.Namespace,
    service: "ServiceConfig",
    broker: "Broker",
    choices: "ReplayOptions",
) -> int:
    from rich.console import Console

    from ctdeface_shared.console import printable
    from ctdeface_shared.replay.case import Replay

    replay = Replay(
        spool=service.spool,
        publish=broker.publish,
        choices=choices,
        defaults=service.settings.deface.options(),
        only_look=namespace.dry_run,
        anyway=namespace.anyway,
    )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    left = done = 0
    for case, order, reason in (
        _dead(replay, broker) if namespace.dead else _cases(namespace, service, replay)
    ):
        console.print(
            printable(
                f"{case}: left: {reason}"
                if order is None
                else f"{case}: {_in_words(order, only_look=namespace.dry_run)}"
            )
        )
        left += order is None
        done += order is not None
    if not left and not done:
        console.print("nothing to replay")
    return 1 if left else 0


def _cases(
    namespace: argparse.Namespace, service: "ServiceConfig", replay: "Replay"
) -> "Iterator[tuple[str, ReplayRequest | None, str]]":
    from time import time

    from ctdeface_shared.errors import EscapingPath, InvalidMessage
    from ctdeface_shared.replay.case import NotReplayed, replay_case
    from ctdeface_shared.status.spool_status import SpoolScanner

    cases = [namespace.case]
    if namespace.all:
        seen = SpoolScanner(service.spool, case_depth=service.settings.watch.case_depth).look(
            time()
        )
        cases = [one.case for one in reversed(seen.refused) if namespace.code in {None, one.code}]
    for case in cases:
        try:
            yield case, replay_case(replay, case), ""
        except (NotReplayed, InvalidMessage, EscapingPath) as error:
            yield case, None, str(error)


def _dead(replay: "Replay", broker: "Broker") -> "Iterator[tuple[str, ReplayRequest | None, str]]":
    from ctdeface_shared.replay.dead_letters import revive_all

    for revived in revive_all(replay, broker):
        yield (
            revived.case or f"dead letter {revived.letter.tag} ({revived.letter.code})",
            revived.order,
            revived.reason,
        )


def _in_words(order: "ReplayRequest", *, only_look: bool) -> str:
    options = ", ".join(f"{name} {value}" for name, value in order.job.options.as_plain().items())
    return f"{'would be replayed' if only_look else 'replayed'} as job {order.job.job_id}, generation {order.job.generation} ({options})"
