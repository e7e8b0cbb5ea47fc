"""`ctdeface audit`: what a person or an auditor sees of a service and of a batch, and what each kind of tampering gives."""

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.audit import command
from ctdeface_shared.audit.keys import load_private_key
from ctdeface_shared.cli import EXIT_CONFIGURATION, EXIT_OK, EXIT_REFUSED, main
from ctdeface_shared.settings import keys, variable_of
from ctdeface_shared.spool import Spool
from ctdeface_worker.publishing import publish
from tests.integration.test_publishing import NEWEST, Killed, kill_after, stage
from tests.service.audited import lines_of, log_in, release, rewrite, rules_with


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without settings, and do not wait for a service that there is not."""
    monkeypatch.chdir(tmp_path)
    for key in keys():
        monkeypatch.delenv(variable_of(key), raising=False)
    monkeypatch.setattr(command, "RECHECK_SECONDS", 0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key pair, and a batch of three released cases, one of them released twice with different outputs."""
    root = tmp_path_factory.mktemp("made")
    assert main(["audit", "key", str(root / "audit.key")]) == EXIT_OK
    spool = spool_in(root)
    spool.prepare(outbox_mode=0o750)
    with log_in(root / "out.ctdeface", load_private_key(root / "audit.key")) as log:
        release(spool, log, "one", case="a")
        release(spool, log, "two", "other", case="group/b")
        release(spool, log, "old", "old", case="c")
        release(spool, log, "newer", "new", case="c", created_at=NEWEST)
    return root


@pytest.fixture
def spool(made: Path, tmp_path: Path) -> Spool:
    """A copy of that, to be tampered with."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    return spool_in(tmp_path)


def spool_in(root: Path) -> Spool:
    """The folders of a batch."""
    return Spool.beside(root / "out", root / "out.ctdeface")


def verify(capsys: pytest.CaptureFixture[str], *more: str, public_key: str | None = "audit.key.pub") -> tuple[int, list[str]]:
    """Run `ctdeface audit verify --out out --json`; return its exit code and the problems."""
    capsys.readouterr()
    given = ["--public-key", public_key] if public_key else []
    code = main(["audit", "verify", "--out", "out", "--json", *given, *more])
    told = json.loads(capsys.readouterr().out)
    assert told["intact"] == (code == EXIT_OK)
    return code, told["problems"]


def test_a_key_pair_is_made_once_with_the_right_modes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The private key is for its owner only, the public one for everybody; neither is ever overwritten."""
    private, public = tmp_path / "audit.key", tmp_path / "audit.key.pub"
    assert main(["audit", "key", str(private)]) == EXIT_OK
    assert [stat.S_IMODE(file.stat().st_mode) for file in (private, public)] == [0o600, 0o644]
    assert load_private_key(private).name in capsys.readouterr().out
    before = private.read_bytes()
    assert main(["audit", "key", str(private)]) == EXIT_CONFIGURATION
    assert "never overwritten" in capsys.readouterr().err
    assert private.read_bytes() == before


@pytest.mark.usefixtures("spool")
def test_what_nobody_touched_is_intact(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0; a person is told what was looked at, and what would not be seen."""
    assert main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub"]) == EXIT_OK
    told = capsys.readouterr().out.splitlines()
    assert (
        told[-5:]
        == [
            "1 chains, 4 entries: 4 signed, 0 unsigned",
            "no published head was given: an end that was cut off would not be seen (--head FILE)",
            "4 reports and 3 cases of the outbox looked at",
            "intact",
        ][-5:]
    )


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
    file.write_text(file.read_text(encoding="utf-8").replace('"profile": "soft-tissue"', '"profile": "bulky"'), encoding="utf-8")


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
STRANGE = "lies in the outbox, and no report says where it comes from"
TAMPERINGS: dict[str, tuple[Callable[[Spool], None], list[str]]] = {
    "a file is altered": (_alter, ["a: 1.dcm was altered"]),
    "a file is added": (_add, ["a: extra.dcm was added"]),
    "a file is removed": (_remove, ["a: sub/2.dcm is missing"]),
    "a file is a link": (_link, ["a: 1.dcm was altered"]),
    "a case is brought in": (
        _bring_a_case_in,
        [f"smuggled/{name} lies in the outbox, and no report says where it comes from" for name in ("1.dcm", "sub/2.dcm")],
    ),
    "an earlier output is put back": (_roll_back, ["c: an earlier output lies in the place of the one that replaced it"]),
    "an earlier output is put back and the later report removed": (
        _roll_back_with_the_report,
        ["c: an earlier output lies in the place of the one that replaced it"],
    ),
    "a report is changed": (_change_a_report, ["a, job one: its report is not the one that was entered"]),
    "a report is damaged": (
        _damage_a_report,
        ["a/one/report.json is damaged: it cannot be read as a report", *(f"a/{name} {STRANGE}" for name in FILES)],
    ),
    "an output is altered and its report made to fit": (
        _change_output_and_report,
        ["a, job one: its report is not the one that was entered", "a lies in the outbox, and no entry says that it was released"],
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_with_outbox_and_reports_is_told_by_name(what: str, spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and a sentence for each thing that is not what was entered."""
    assert verify(capsys) == (EXIT_OK, [])
    tamper, said = TAMPERINGS[what]
    tamper(spool)
    assert verify(capsys) == (EXIT_REFUSED, said)


def test_two_cases_that_changed_places_are_found(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_case_whose_publication_was_broken_off_is_found(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """It lies in the outbox, and until a worker has finished it, no entry says so; what its report says of that is no excuse."""
    with log_in(spool.audit.parent) as log:
        report, staged = stage(spool, "three", "new", case="d")
        with pytest.raises(Killed):
            publish(spool, report, staged, rules_with(log, spool), step=kill_after("published"))
    assert verify(capsys) == (EXIT_REFUSED, ["d lies in the outbox, and no entry says that it was released"])
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
def test_no_state_that_a_report_claims_covers_an_altered_file(spool: Spool, capsys: pytest.CaptureFixture[str], state: str) -> None:
    """Whoever alters a file and its report together may write any state there."""
    _forged(spool, "a", "one", state=state)
    code, told = verify(capsys)
    assert code == EXIT_REFUSED
    assert any(problem.startswith("a") for problem in told)


@pytest.mark.parametrize("code", ["LateFiles", "UnsafeArchive"])
def test_a_release_that_is_told_as_a_refusal_of_the_watcher_is_found(spool: Spool, capsys: pytest.CaptureFixture[str], code: str) -> None:
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


def test_a_copy_beside_the_segments_stops_nobody_and_is_named(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody's backup in the folder of a chain keeps no worker from writing, nor hides anything."""
    (chain,) = spool.audit.iterdir()
    shutil.copy(chain / "000001.jsonl", chain / "000001 (copy).jsonl")
    with log_in(spool.audit.parent, load_private_key(Path("audit.key"))) as log:
        release(spool, log, "three", case="d")
    code, told = verify(capsys)
    assert (code, [text.partition(": ")[2] for text in told]) == (EXIT_REFUSED, ["000001 (copy).jsonl does not belong there"])


def test_an_altered_end_stays_found_after_an_honest_entry(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """The next entry answers for the lines that it found, and a killed writer leaves no whole ones."""
    root = spool.audit.parent
    rewrite(root, [*lines_of(root)[:2], *(line.replace(b"a", b"b") for line in lines_of(root)[2:])])
    with log_in(root, load_private_key(Path("audit.key"))) as log:
        release(spool, log, "three", case="d")
    code, told = verify(capsys, "--chains-only")
    assert code == EXIT_REFUSED
    assert any("a whole line before entry 3 is damaged" in problem for problem in told)


@pytest.mark.parametrize("before", ["\ufeff", "host: "])
def test_a_published_head_is_never_passed_over(spool: Spool, capsys: pytest.CaptureFixture[str], before: str) -> None:
    """Neither a byte-order mark nor a prefix makes a line with a head one without."""
    (chain,) = spool.audit.iterdir()
    Path("heads.txt").write_text(f"{before}ctdeface-audit {chain.name} 9 {'0' * 64}\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub", "--head", "heads.txt"]) in {
        EXIT_REFUSED,
        EXIT_CONFIGURATION,
    }


def test_collected_cases_are_no_problem(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever takes released cases away may do so."""
    shutil.rmtree(spool.outbox / "a")
    assert verify(capsys) == (EXIT_OK, [])


def test_a_published_head_shows_a_tail_that_is_gone_with_all_it_was_about(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """Output, report and entry of a case vanish without a trace but for the head, which somebody else keeps."""
    root = spool.audit.parent
    capsys.readouterr()
    for name, more in (("heads.txt", ()), ("heads.json", ("--json",))):
        assert main(["audit", "head", "--out", "out", *more]) == EXIT_OK
        Path(name).write_text(capsys.readouterr().out, encoding="utf-8")
        assert verify(capsys, "--head", name) == (EXIT_OK, [])
    rewrite(root, lines_of(root)[:2])
    for gone in (spool.outbox / "c", spool.reports / "c"):
        shutil.rmtree(gone)
    assert verify(capsys) == (EXIT_OK, [])
    for name in ("heads.txt", "heads.json"):
        (head,) = verify(capsys, "--head", name)[1]
        assert head.endswith("entry 4 was published and is gone: the chain was cut")


def test_without_the_key_nothing_signed_is_called_intact(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 78 and says which option is missing; a wrong key is told entry by entry."""
    capsys.readouterr()
    assert main(["audit", "verify", "--out", str(spool.outbox)]) == EXIT_CONFIGURATION
    assert "--public-key" in capsys.readouterr().err
    main(["audit", "key", "other.key"])
    code, told = verify(capsys, public_key="other.key.pub")
    assert code == EXIT_REFUSED
    assert sum("is signed with the unknown key" in problem for problem in told) == 4


def test_unsigned_entries_are_labeled_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In what a person reads and in what a program reads."""
    made = Spool.beside(tmp_path / "out", tmp_path / "out.ctdeface")
    made.prepare(outbox_mode=0o750)
    with log_in(tmp_path / "out.ctdeface") as log:
        release(made, log, "one")
    assert main(["audit", "verify", "--out", "out"]) == EXIT_OK
    assert "UNSIGNED entries prove nothing" in capsys.readouterr().out
    assert main(["audit", "verify", "--out", "out", "--json"]) == EXIT_OK
    told = json.loads(capsys.readouterr().out)
    assert (told["signed"], told["unsigned"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--out", "nothing"], "there are no reports at nothing.ctdeface/reports"),
        (["verify", "--out", "out", "--public-key", "nothing.pub"], "cannot be read"),
        (["verify", "--out", "out", "--public-key", "audit.key"], "give the .pub file"),
        (["verify", "--out", "out", "--head", "audit.key"], "holds no heads"),
        (["key", "nowhere/audit.key"], "cannot be written"),
    ],
)
@pytest.mark.usefixtures("spool")
def test_what_must_be_put_right_first_is_told_in_a_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 78, as for every command."""
    assert main(["audit", *arguments]) == EXIT_CONFIGURATION
    assert said in capsys.readouterr().err
