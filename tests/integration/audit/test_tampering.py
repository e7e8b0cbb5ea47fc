"""`ctdeface audit verify` names every kind of tampering with outbox, reports and chains."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.audit.keys import load_private_key
from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_OK, EXIT_REFUSED
from ctdeface_shared.storage.spool import Spool
from ctdeface_worker.publishing.commit import publish
from tests.integration.test_publishing import Killed, kill_after, stage
from tests.support.service.audited import lines_of, log_in, release, rewrite, rules_with, verify


def _alter(spool: Spool) -> None:
    (spool.outbox / "a" / "1.dcm").write_text("the face again", encoding="utf-8")


def _add(spool: Spool) -> None:
    (spool.outbox / "a" / "extra.dcm").write_text("more", encoding="utf-8")


def _remove(spool: Spool) -> None:
    (spool.outbox / "a" / "sub/2.dcm").unlink()


def _link(spool: Spool) -> None:
    (spool.outbox / "a" / "1.dcm").rename(spool.outbox.parent / "elsewhere")
    (spool.outbox / "a" / "1.dcm").symlink_to(spool.outbox.parent / "elsewhere")


def _bring_a_case_in(spool: Spool) -> None:
    shutil.copytree(spool.outbox / "a", spool.outbox / "smuggled")


def _swap(spool: Spool) -> None:
    (spool.outbox / "a").rename(spool.outbox / "x")
    (spool.outbox / "group/b").rename(spool.outbox / "a")
    (spool.outbox / "x").rename(spool.outbox / "group/b")


def _roll_back(spool: Spool) -> None:
    shutil.rmtree(spool.outbox / "c")
    (spool.archive / "outputs" / "c" / "old").rename(spool.outbox / "c")


def _roll_back_with_the_report(spool: Spool) -> None:
    _roll_back(spool)
    shutil.rmtree(spool.reports / "c" / "newer")


def _change_a_report(spool: Spool) -> None:
    file = spool.reports / "a" / "one" / "report.json"
    file.write_text(
        file.read_text(encoding="utf-8").replace('"profile": "soft-tissue"', '"profile": "bulky"'),
        encoding="utf-8",
    )


def _damage_a_report(spool: Spool) -> None:
    (spool.reports / "a" / "one" / "report.json").write_text("{", encoding="utf-8")


def _change_output_and_report(spool: Spool) -> None:
    _alter(spool)
    file = spool.reports / "a" / "one" / "report.json"
    told = json.loads(file.read_bytes())
    digest = hashlib.sha256((spool.outbox / "a" / "1.dcm").read_bytes()).hexdigest()
    told["result"]["files"][0]["output_sha256"] = digest
    file.write_text(json.dumps(told), encoding="utf-8")


FILES = ("1.dcm", "sub/2.dcm")
STRANGE = "is in the outbox, and no report says where it comes from"
TAMPERINGS: dict[str, tuple[Callable[[Spool], None], list[str]]] = {
    "a file is altered": (_alter, ["a: 1.dcm was altered"]),
    "a file is added": (_add, ["a: extra.dcm was added"]),
    "a file is removed": (_remove, ["a: sub/2.dcm is missing"]),
    "a file is a link": (_link, ["a: 1.dcm was altered"]),
    "a case is brought in": (
        _bring_a_case_in,
        [
            f"smuggled/{name} is in the outbox, and no report says where it comes from"
            for name in ("1.dcm", "sub/2.dcm")
        ],
    ),
    "an earlier output is put back": (
        _roll_back,
        ["c: an earlier output is in the place of the one that replaced it"],
    ),
    "an earlier output is put back and the later report removed": (
        _roll_back_with_the_report,
        ["c: an earlier output is in the place of the one that replaced it"],
    ),
    "a report is changed": (
        _change_a_report,
        ["a, job one: its report is not the one that was entered"],
    ),
    "a report is damaged": (
        _damage_a_report,
        [
            "a/one/report.json is damaged: it cannot be read as a report",
            *(f"a/{name} {STRANGE}" for name in FILES),
        ],
    ),
    "an output is altered and its report made to fit": (
        _change_output_and_report,
        [
            "a, job one: its report is not the one that was entered",
            "a is in the outbox, and no entry says that it was released",
        ],
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_with_outbox_and_reports_is_told_by_name(
    what: str, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and a sentence for each thing that is not what was entered."""
    assert verify(capsys) == (EXIT_OK, [])
    tamper, said = TAMPERINGS[what]
    tamper(spool)
    assert verify(capsys) == (EXIT_REFUSED, said)


def test_two_cases_that_changed_places_are_found(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both hold files that were released, but not as these cases."""
    _swap(spool)
    code, told = verify(capsys)
    assert code == EXIT_REFUSED
    assert {problem.partition(":")[0] for problem in told} == {"a", "group/b"}


def test_a_case_without_an_entry_is_found(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """Its entry was cut off, or it never had one: report and output alone prove nothing."""
    rewrite(spool.audit.parent, lines_of(spool.audit.parent)[:-1])
    code, told = verify(capsys)
    assert (code, told[0]) == (EXIT_REFUSED, "c, job newer is done, and no entry says so")


def test_a_case_whose_publication_was_broken_off_is_found(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is in the outbox without an entry, and its report does not excuse this."""
    with log_in(spool.audit.parent) as log:
        report, staged = stage(spool, "three", "new", case="d")
        with pytest.raises(Killed):
            publish(spool, report, staged, rules_with(log, spool), step=kill_after("published"))
    assert verify(capsys) == (
        EXIT_REFUSED,
        ["d is in the outbox, and no entry says that it was released"],
    )
    main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub"])
    assert "note: d, job three has not ended: published" in capsys.readouterr().out


def _forged(spool: Spool, case: str, job: str, **changes: str) -> None:
    """Alter what a report says of itself, and a file of its case with its digest."""
    file = spool.reports / case / job / "report.json"
    report = json.loads(file.read_text())
    released = next(path for path in sorted((spool.outbox / case).rglob("*")) if path.is_file())
    released.write_bytes(b"another face")
    for told in report["result"]["files"]:
        if told["file"] == released.relative_to(spool.outbox / case).as_posix():
            told["output_sha256"] = hashlib.sha256(b"another face").hexdigest()
    report["result"]["code"] = changes.pop("code", report["result"]["code"])
    file.write_text(json.dumps({**report, **changes}))


@pytest.mark.parametrize("state", ["published", "prepared", "refused", "superseded", "nonsense"])
def test_no_state_that_a_report_claims_covers_an_altered_file(
    spool: Spool, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    """Whoever alters a file and its report together may write any state there."""
    _forged(spool, "a", "one", state=state)
    code, told = verify(capsys)
    assert code == EXIT_REFUSED
    assert any(problem.startswith("a") for problem in told)


@pytest.mark.parametrize("code", ["LateFiles", "UnsafeArchive"])
def test_a_release_that_is_told_as_a_refusal_of_the_watcher_is_found(
    spool: Spool, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    """Such refusals have no entry; this job has one."""
    _forged(spool, "a", "one", state="refused", code=code)
    shutil.rmtree(spool.outbox / "a")
    assert verify(capsys) == (EXIT_REFUSED, ["a, job one is refused, and no entry says so"])


def test_unsigned_entries_after_signed_ones_are_found_even_where_unsigned_ones_count(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those from before there was a key come first."""
    with log_in(spool.audit.parent) as log:
        release(spool, log, "three", case="d")
    problem = "entry 5 is not signed and follows signed ones"
    code, told = verify(capsys, "--allow-unsigned")
    assert code == EXIT_REFUSED
    assert [text.partition(": ")[2] for text in told] == [problem]


def test_a_copy_beside_the_segments_stops_nobody_and_is_named(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup in the folder of a chain neither stops a writer nor hides a change."""
    (chain,) = spool.audit.iterdir()
    shutil.copy(chain / "000001.jsonl", chain / "000001 (copy).jsonl")
    with log_in(spool.audit.parent, load_private_key(Path("audit.key"))) as log:
        release(spool, log, "three", case="d")
    code, told = verify(capsys)
    assert (code, [text.partition(": ")[2] for text in told]) == (
        EXIT_REFUSED,
        ["000001 (copy).jsonl does not belong there"],
    )


def test_an_altered_end_stays_found_after_an_honest_entry(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next entry covers the lines before it; a killed writer leaves partial lines only."""
    root = spool.audit.parent
    rewrite(root, [*lines_of(root)[:2], *(line.replace(b"a", b"b") for line in lines_of(root)[2:])])
    with log_in(root, load_private_key(Path("audit.key"))) as log:
        release(spool, log, "three", case="d")
    code, told = verify(capsys, "--chains-only")
    assert code == EXIT_REFUSED
    assert any("a whole line before entry 3 is damaged" in problem for problem in told)
