"""Check the audit log, and reports and released cases against it.

The log has an entry for each ended case, in chains that every process of a worker continues.
`verify` checks every chain and signature, and that outbox and reports are as they were entered.
`head` checks the chains and prints the last entry of each. Publish these lines elsewhere: only a
published head shows later that a chain was cut.
"""

import argparse
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
  ctdeface audit verify --spool SPOOL --public-key audit.pub                    a service
  ctdeface audit verify --out defaced                                           a batch
  ctdeface audit verify --spool SPOOL --public-key audit.pub --head heads.txt   no chain was cut
  ctdeface audit head --spool SPOOL --public-key audit.pub >> heads.txt         to be published
  ctdeface audit key /etc/ctdeface/audit.key                                    a new key pair
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "chains, signatures, reports and released cases agree",
    EXIT_REFUSED: "something was changed, is missing or was never entered",
}
RECHECK_SECONDS = 2.0
"""A problem counts if a second check after this time finds it again.

A running service moves files between two looks.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="check chains, signatures, reports and outbox")
    _add_place(verify)
    _add_trust(verify)
    verify.add_argument("--chains-only", action="store_true", help="skip reports and outbox")
    head = actions.add_parser("head", help="check the chains and print the last entry of each")
    _add_place(head)
    _add_trust(head)
    key = actions.add_parser("key", help="create a key pair")
    key.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="new file for the private key; the public key goes to FILE.pub",
    )


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spool", type=Path, metavar="DIR", help="spool of a service (default: spool.root)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="OUT", help="output folder of ctdeface deface, for a batch"
    )
    parser.add_argument(
        "--state-root", type=Path, metavar="DIR", help="its state root (default: OUT.ctdeface)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--public-key",
        type=Path,
        metavar="FILE",
        help="accepted public keys (default: audit.public_key_file)",
    )
    parser.add_argument(
        "--allow-unsigned",
        action="store_true",
        help="accept unsigned entries, such as those from before there was a key",
    )
    parser.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="published heads that the chains must contain; can be repeated",
    )


def run(namespace: argparse.Namespace) -> int:
    """Run the action and return the exit code.

    Raises:
        ConfigurationError: a folder or a key must be corrected first.
    """
    from ctdeface_shared.errors import ConfigurationError

    action = {"verify": _verify, "head": _head, "key": _key}[namespace.action]
    try:
        return action(namespace)
    except PermissionError as error:
        raise ConfigurationError(
            f"{error.filename} cannot be read, but the whole spool must be checked: "
            "run this as the user of the service"
        ) from error


def _key(namespace: argparse.Namespace) -> int:
    from ctdeface_shared.audit.keys import make_key_pair
    from ctdeface_shared.console import print_line

    key = make_key_pair(namespace.file)
    print_line(f"private key {namespace.file}: for audit.key_file; only workers may read it")
    print_line(f"public key  {namespace.file}.pub: for audit.public_key_file and for every check")
    print_line(f"name of the key in entries: {key.name}")
    return EXIT_OK


def _head(namespace: argparse.Namespace) -> int:
    """Print the heads, unless a chain has a problem: a published head vouches for all before it."""
    from dataclasses import asdict

    from ctdeface_shared.commands.main import complain
    from ctdeface_shared.console import print_json, print_line, printable

    settings, spool = _place(namespace)
    chains, problems, _ = _inspected(namespace, spool, _trust(namespace, settings))
    if problems:
        for text in problems:
            complain(printable(f"WRONG: {text}"), EXIT_REFUSED)
        return complain(
            "no head is printed, because chains with problems must not be published", EXIT_REFUSED
        )
    heads = [chain.head for chain in chains if chain.head is not None]
    if namespace.json:
        print_json([asdict(head) for head in heads])
    else:
        for head in heads:
            print_line(head.line)
    return EXIT_OK


def _verify(namespace: argparse.Namespace) -> int:
    from ctdeface_shared.console import print_json, print_line

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
        print_json({"intact": not problems, **counts, "problems": problems, "notes": notes})
    else:
        for line in _lines(counts, problems, notes):
            print_line(line, indent=4)
    return EXIT_REFUSED if problems else EXIT_OK


def _inspected(
    namespace: argparse.Namespace, spool: "Spool", trust: "Trust"
) -> "tuple[tuple[Chain, ...], list[str], int]":
    """Return the chains, their problems, and the number of published heads.

    Raises:
        ConfigurationError: the entries are signed and no key is given, or a file of heads cannot be
            read.
    """
    from itertools import chain as chained

    from ctdeface_shared.audit.inspection import inspect_chains, missing_heads, read_heads

    heads = list(chained.from_iterable(read_heads(file) for file in namespace.head))
    chains = inspect_chains(spool.audit, trust)
    _require_keys(chains, trust)
    problems = [f"{chain.name}: {text}" for chain in chains for text in chain.problems]
    return chains, [*problems, *missing_heads(chains, heads)], len(heads)


def _lines(counts: dict[str, int], problems: list[str], notes: list[str]) -> list[str]:
    signing = f"{counts['signed']} signed, {counts['unsigned']} unsigned"
    lines = [f"{counts['chains']} chains, {counts['entries']} entries: {signing}"]
    if counts["unsigned"]:
        lines.append(
            "UNSIGNED entries can be forged by anyone who can write the audit folder: "
            "set audit.key_file"
        )
    if not counts["heads_checked"]:
        lines.append(
            "no published head was given, so a chain that was cut would not be noticed: add --head"
        )
    lines.append(
        f"{counts['reports_checked']} reports and {counts['cases_checked']} "
        "cases of the outbox checked"
    )
    lines += [f"note: {text}" for text in notes]
    lines += [f"WRONG: {text}" for text in problems]
    return [*lines, f"{len(problems)} problems" if problems else "intact"]


def _cases(spool: "Spool", trust: "Trust") -> "CaseFindings":
    """Check reports and outbox, and repeat the check if it finds a problem."""
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
    """Return the settings and folders of a service or a batch.

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
            f"no reports were found at {spool.reports}: give the spool of a service with --spool, "
            "or the output of ctdeface deface with --out"
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
    """Require a public key if entries are signed.

    Raises:
        ConfigurationError: no key was given.
    """
    from ctdeface_shared.errors import ConfigurationError

    if not trust.keys and any(len(chain.ends) > chain.unsigned for chain in chains):
        raise ConfigurationError(
            "the entries are signed, and a public key is required to check them: "
            "give it with --public-key or audit.public_key_file"
        )
