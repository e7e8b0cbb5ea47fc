"""Checks the audit log: every chain of entries about ended cases, every signature, and that outbox and reports are what was entered.

`head` checks the chains and prints the last entry of each: publish it elsewhere, for only a head
    that nobody here can change shows that a
chain was cut.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ctdeface_shared.audit.cases import CaseFindings
    from ctdeface_shared.audit.inspection import Chain, Trust
    from ctdeface_shared.settings.loading import Settings
    from ctdeface_shared.storage.spool import Spool

EXAMPLES = """\
examples:
  ctdeface audit verify --spool /srv/ctdeface --public-key audit.pub                    a service, with all it released
  ctdeface audit verify --out defaced                                                   what ctdeface deface -o defaced released
  ctdeface audit verify --spool /srv/ctdeface --public-key audit.pub --head heads.txt   no chain shorter than it was published
  ctdeface audit head --spool /srv/ctdeface --public-key audit.pub >> heads.txt         what to publish
  ctdeface audit key /etc/ctdeface/audit.key                                            a new key pair: audit.key and audit.key.pub
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "chains, signatures, reports and released cases agree",
    EXIT_REFUSED: "something was changed, is missing or was never recorded",
}
RECHECK_SECONDS = 2.0
"""A running service changes things between two looks: only what is wrong both times is a problem."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="check chains, signatures, reports and outbox")
    _add_place(verify)
    _add_trust(verify)
    verify.add_argument(
        "--chains-only", action="store_true", help="do not look at reports and outbox"
    )
    head = actions.add_parser(
        "head", help="check the chains and print the last entry of each, to be published"
    )
    _add_place(head)
    _add_trust(head)
    key = actions.add_parser("key", help="make a key pair")
    key.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="new file of the private key; the public one gets the ending .pub",
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="root of a service's spool (default: spool.root)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT", help="output of ctdeface deface, instead of a service"
    )
    parser.add_argument(
        "--state-root", type=Path, metavar="DIR", help="its state root (default: OUT.ctdeface)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="keys that count (default: audit.public_key_file)",
    )
    parser.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="unsigned entries count too: those from before there was a key",
    )
    parser.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="heads that were published; again for more",
    )


def run(namespace: argparse.Namespace) -> int:
    """Do what was asked; 1 when something is not as it should be.

    Raises:
        ConfigurationError: a place or a key must be put right first.
    """
    from rich.console import Console

    from ctdeface_shared.console import printable
    from ctdeface_shared.errors import ConfigurationError

    console = Console(soft_wrap=True, markup=False, highlight=False)
    action = {"verify": _verify, "head": _head, "key": _key}[namespace.action]
    try:
        return action(namespace, lambda text: console.print(printable(text)))
    except PermissionError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be read: run this as a user who may read the whole spool, or nothing can be said about it"
        ) from error


def _key(namespace: argparse.Namespace, say: Callable[[str], None]) -> int:
    from ctdeface_shared.audit.keys import make_key_pair

    key = make_key_pair(namespace.file)
    say(f"private key {namespace.file}: for audit.key_file of the workers, readable for them alone")
    say(f"public key  {namespace.file}.pub: for audit.public_key_file, and for whoever checks")
    say(f"entries call it {key.name}")
    return 0


def _head(namespace: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Print the heads of chains that are as they should be: a head that is published vouches for all before it."""
    import json
    from dataclasses import asdict

    from ctdeface_shared.commands.main import complain
    from ctdeface_shared.console import printable
    from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED

    settings, spool = _place(namespace)
    chains, problems, _ = _inspected(namespace, spool, _trust(namespace, settings))
    if problems:
        for text in problems:
            complain(printable(f"WRONG: {text}"), EXIT_REFUSED)
        return complain(
            "no head is printed: none of these chains is to be published like this", EXIT_REFUSED
        )
    heads = [chain.head for chain in chains if chain.head is not None]
    if namespace.json:
        say(json.dumps([asdict(head) for head in heads]))
    else:
        for head in heads:
            say(head.line)
    return EXIT_OK


def _verify(namespace: argparse.Namespace, say: Callable[[str], None]) -> int:
    import json

    from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED

    settings, spool = _place(namespace)
    trust = _trust(namespace, settings)
    chains, problems, heads = _inspected(namespace, spool, trust)
    notes = [f"{chain.name}: {text}" for chain in chains for text in chain.notes]
    cases = None if namespace.chains_only else _cases(spool, trust)
    if cases is not None:
        problems, notes = problems + cases.problems, notes + cases.notes
    counts = {
        "chains": len(chains),
        "entries": sum(len(chain.ends) for chain in chains),
        "signed": sum(chain.signed for chain in chains),
        "unsigned": sum(chain.unsigned for chain in chains),
        "heads_checked": heads,
        "reports_checked": cases.reports if cases else 0,
        "cases_checked": cases.cases if cases else 0,
        "entries_gone": cases.gone if cases else 0,
        "entries_without_report": cases.unreported if cases else 0,
    }
    if namespace.json:
        say(json.dumps({"intact": not problems, **counts, "problems": problems, "notes": notes}))
    else:
        for line in _told(counts, problems, notes):
            say(line)
    return EXIT_REFUSED if problems else EXIT_OK


def _inspected(
    namespace: argparse.Namespace, spool: "Spool", trust: "Trust"
) -> "tuple[tuple[Chain, ...], list[str], int]":
    """Read the chains; return them, what is wrong with them, and how many published heads they were held against.

    Raises:
        ConfigurationError: the entries are signed, and no key says by whom; or a file of heads
            cannot be read.
    """
    from itertools import chain as chained

    from ctdeface_shared.audit.inspection import inspect_chains, missing_heads, read_heads

    heads = list(chained.from_iterable(read_heads(file) for file in namespace.head))
    chains = inspect_chains(spool.audit, trust)
    _require_keys(chains, trust)
    problems = [f"{chain.name}: {text}" for chain in chains for text in chain.problems]
    return chains, [*problems, *missing_heads(chains, heads)], len(heads)


def _told(counts: dict[str, int], problems: list[str], notes: list[str]) -> list[str]:
    signing = f"{counts['signed']} signed, {counts['unsigned']} unsigned"
    lines = [f"{counts['chains']} chains, {counts['entries']} entries: {signing}"]
    if counts["unsigned"]:
        lines.append(
            "UNSIGNED entries prove nothing against whoever can write the audit folder: set audit.key_file"
        )
    if not counts["heads_checked"]:
        lines.append(
            "no published head was given: an end that was cut off would not be seen (--head FILE)"
        )
    lines.append(
        f"{counts['reports_checked']} reports and {counts['cases_checked']} cases of the outbox looked at"
    )
    lines += [f"note: {text}" for text in notes]
    lines += [f"WRONG: {text}" for text in problems]
    return [*lines, f"{len(problems)} problems" if problems else "intact"]


def _cases(spool: "Spool", trust: "Trust") -> "CaseFindings":
    """Look at reports and outbox, and a second time where something seems wrong: a running service moves things meanwhile."""
    from time import sleep

    from ctdeface_shared.audit.cases import inspect_cases
    from ctdeface_shared.audit.inspection import inspect_chains

    def look() -> "CaseFindings":
        return inspect_cases(
            spool.outbox,
            spool.reports,
            [end for chain in inspect_chains(spool.audit, trust) for end in chain.ends],
        )

    first = look()
    if not first.problems:
        return first
    sleep(RECHECK_SECONDS)
    second = look()
    second.problems = [text for text in second.problems if text in set(first.problems)]
    return second


def _place(namespace: argparse.Namespace) -> "tuple[Settings, Spool]":
    """Find the settings and the folders of a service or of a batch.

    Raises:
        ConfigurationError: there are none.
    """
    from ctdeface_shared.errors import ConfigurationError
    from ctdeface_shared.settings.loading import load
    from ctdeface_shared.settings.service import find_service
    from ctdeface_shared.storage.spool import Spool

    settings: Settings
    spool: Spool
    if namespace.out is None:
        service = find_service(namespace.config, namespace.spool)
        settings, spool = service.settings, service.spool
    else:
        state_root = namespace.state_root or namespace.out.with_name(
            f"{namespace.out.resolve().name}.ctdeface"
        )
        settings, spool = load(namespace.config).settings, Spool.beside(namespace.out, state_root)
    if not spool.reports.is_dir():
        raise ConfigurationError(
            f"there are no reports at {spool.reports}: name the service with --spool, or the output of ctdeface deface with --out"
        )
    return settings, spool


def _trust(namespace: argparse.Namespace, settings: "Settings") -> "Trust":
    from ctdeface_shared.audit.inspection import Trust

    file = namespace.public_key or settings.audit.public_key_file
    if file is None:
        return Trust()
    from ctdeface_shared.audit.keys import load_public_keys

    return Trust(
        keys={key.name: key.is_signature for key in load_public_keys(file)},
        allow_unsigned=namespace.allow_unsigned,
    )


def _require_keys(chains: "tuple[Chain, ...]", trust: "Trust") -> None:
    """Check that signatures can be checked where there are some.

    Raises:
        ConfigurationError: no key was named.
    """
    from ctdeface_shared.errors import ConfigurationError

    if not trust.keys and any(len(chain.ends) > chain.unsigned for chain in chains):
        raise ConfigurationError(
            "the entries are signed, and no key says by whom: name the public key with --public-key or audit.public_key_file"
        )
