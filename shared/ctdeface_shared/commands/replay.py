"""Repeat cases: refused ones from the quarantine, released ones from the archive, or dead letters.

The originals go to the cases in flight, not into the inbox, and a job of a higher generation is put
into the queue. It keeps the options of the earlier job except those given here. The report of the
earlier job stays. An interrupted replay continues when it is run again.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ctdeface_shared.commands.arguments import add_place
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED, EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ctdeface_shared.broker.protocols import Broker
    from ctdeface_shared.jobs.replay_requests import ReplayRequest
    from ctdeface_shared.replay.case import Replay
    from ctdeface_shared.replay.request import ReplayOptions
    from ctdeface_shared.settings.service import ServiceConfig

EXAMPLES = """\
examples:
  ctdeface replay case-0001 --profile bulky             one case, with another profile
  ctdeface replay --all --code VerificationFailed       every case that was refused for this reason
  ctdeface replay case-0001 --withhold 1.2.840.1.5      without a series that holds it back
  ctdeface replay --dead                                every dead letter of the queue
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "every requested case is replayed",
    EXIT_REFUSED: "a case was not replayed (its line says why), or queue or storage failed",
    EXIT_USAGE: "the command line was not understood, or no such code exists",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_place(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "case", nargs="?", metavar="CASE", help="name of the case, relative to the inbox"
    )
    which.add_argument(
        "--all", action="store_true", help="every refused case, or those with the given --code"
    )
    which.add_argument("--dead", action="store_true", help="every dead letter of the queue")
    parser.add_argument(
        "--code",
        metavar="CODE",
        help="with --all: only cases refused with this code, such as VerificationFailed",
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
        help="leave out the series with this SeriesInstanceUID; can be repeated",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="replay also while a job of the case seems to be on its way, after a lost queue",
    )
    parser.add_argument("--dry-run", action="store_true", help="only report what would be replayed")


def run(namespace: argparse.Namespace) -> int:
    """Replay the requested cases and return the exit code.

    Raises:
        ConfigurationError: the options contradict each other, or the spool does not exist.
    """
    from ctdeface_shared.broker import open_broker
    from ctdeface_shared.commands.main import complain
    from ctdeface_shared.settings.service import find_service

    _require_fitting_options(namespace)
    unknown = _unknown_code(namespace.code) if namespace.code else ""
    if unknown:
        return complain(unknown, EXIT_USAGE)
    service = find_service(namespace.config, namespace.spool, namespace.broker)
    service.require_spool()
    require_service_user(service.spool.reports)
    changes = _changes(namespace)
    service.prepare()
    broker = open_broker(service.queue)
    try:
        return _replay(namespace, service, broker, changes)
    finally:
        broker.close()


def require_service_user(reports: Path) -> None:
    """Keep root from creating folders that the service's user cannot write.

    A probe file shows who owns what root creates, because a share may give all files to one user.

    Args:
        reports: folder of reports, which belongs to the service's user.

    Raises:
        ConfigurationError: new files belong to root, and the folder to another user.
        StorageUnavailable: no file can be created there, as on a full disk.
    """
    from tempfile import NamedTemporaryFile

    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.storage import atomic

    owner = reports.stat().st_uid
    with atomic.storage_errors(), NamedTemporaryFile(dir=reports, prefix=".") as probe:
        creator = Path(probe.name).stat().st_uid
    if creator == 0 and owner != 0:
        raise ConfigurationError(
            f"root's files could not be written by the service's user {owner}: "
            f"run this as that user, with sudo -u '#{owner}'"
        )


def _require_fitting_options(namespace: argparse.Namespace) -> None:
    from ctdeface_shared.errors import ConfigurationError

    if namespace.code and not namespace.all:
        raise ConfigurationError("--code needs --all")
    if namespace.withhold and not namespace.case:
        raise ConfigurationError("--withhold needs one CASE, because a series is in one case only")


def _unknown_code(code: str) -> str:
    """Return an error if no case can be refused with a code, else an empty text."""
    from difflib import get_close_matches

    from ctdeface_shared.errors import PermanentError, TransientError
    from ctdeface_shared.jobs.remedies import REMEDIES

    known = {*REMEDIES, *_codes_below(PermanentError), *_codes_below(TransientError)}
    if code in known:
        return ""
    near = [one for one in sorted(known) if one.lower().startswith(code.lower())]
    near = near or get_close_matches(code, sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "ctdeface status shows the codes"
    return f"{code} is not a code of a refusal: {hint}"


def _codes_below(kind: "type[Exception]") -> "Iterator[str]":
    for one in kind.__subclasses__():
        yield one.__name__
        yield from _codes_below(one)


def _changes(namespace: argparse.Namespace) -> "ReplayOptions":
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.jobs.options import FillRule, Profile
    from ctdeface_shared.replay.request import ReplayOptions

    try:
        fill = FillRule.parse(namespace.fill) if namespace.fill else None
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return ReplayOptions(
        profile=Profile(namespace.profile) if namespace.profile else None,
        segmenter=namespace.segmenter,
        fill=fill,
        withhold=namespace.withhold,
    )


def _replay(
    namespace: argparse.Namespace,
    service: "ServiceConfig",
    broker: "Broker",
    changes: "ReplayOptions",
) -> int:
    from ctdeface_shared.console import print_line
    from ctdeface_shared.jobs.options import Originals
    from ctdeface_shared.replay.case import Replay

    replay = Replay(
        spool=service.spool,
        publish=broker.publish,
        changes=changes,
        defaults=service.settings.deface.options(),
        limits=service.settings.limits.tree(),
        kept=service.settings.spool.originals is Originals.KEEP,
        dry_run=namespace.dry_run,
        anyway=namespace.anyway,
    )
    if namespace.dead:
        results = _requeue_dead_letters(replay, broker)
    else:
        results = _replay_cases(replay, _cases(namespace, service))
    failed = replayed = 0
    for case, request, reason in results:
        if request is None:
            failed += 1
            print_line(f"{case}: not replayed: {reason}", indent=4)
        else:
            replayed += 1
            print_line(f"{case}: {_description(request, dry_run=namespace.dry_run)}", indent=4)
    if not failed and not replayed:
        print_line("nothing to replay")
    return EXIT_REFUSED if failed else EXIT_OK


def _cases(namespace: argparse.Namespace, service: "ServiceConfig") -> list[str]:
    """Return the names of the requested cases, oldest refusal first."""
    from time import time

    from ctdeface_shared.status.spool_status import SpoolScanner
    from ctdeface_shared.status.watcher_state import WATCHER_STATE, read_watcher_state

    if not namespace.all:
        return [namespace.case]
    watch = service.settings.watch
    scanner = SpoolScanner(service.spool, case_depth=watch.case_depth, ignore=watch.ignore)
    # Without the watcher's knowledge, cases that stay in the inbox would count as waiting.
    watcher = read_watcher_state(service.state_dir / WATCHER_STATE)
    refused = reversed(scanner.look(time(), watcher.kept if watcher else ()).refused)
    return [one.case for one in refused if namespace.code in {None, one.code}]


def _replay_cases(
    replay: "Replay", cases: "Iterable[str]"
) -> "Iterator[tuple[str, ReplayRequest | None, str]]":
    from ctdeface_shared.errors import EscapingPath, InvalidMessage, UnsafeDrop
    from ctdeface_shared.replay.case import replay_case
    from ctdeface_shared.replay.sources import NotReplayed

    for case in cases:
        try:
            yield case, replay_case(replay, case), ""
        except (NotReplayed, InvalidMessage, EscapingPath, UnsafeDrop) as error:
            yield case, None, str(error)


def _requeue_dead_letters(
    replay: "Replay", broker: "Broker"
) -> "Iterator[tuple[str, ReplayRequest | None, str]]":
    from ctdeface_shared.replay.dead_letters import requeue_dead_letters

    for one in requeue_dead_letters(replay, broker):
        name = one.case or f"dead letter {one.letter.tag} ({one.letter.code})"
        yield name, one.request, one.reason


def _description(request: "ReplayRequest", *, dry_run: bool) -> str:
    job = request.job
    options = ", ".join(f"{name} {value}" for name, value in job.options.as_plain().items())
    verb = "would be replayed" if dry_run else "replayed"
    return f"{verb} as job {job.job_id}, generation {job.generation} ({options})"
