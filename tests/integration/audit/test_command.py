"""`ctdeface audit` checks a service or a batch, and prints only heads that may be published."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from ctdeface_shared.audit.keys import load_private_key
from ctdeface_shared.commands.main import main
from ctdeface_shared.exit_codes import EXIT_CONFIGURATION, EXIT_OK, EXIT_REFUSED
from ctdeface_shared.storage.spool import Spool
from tests.support.service.audited import lines_of, log_in, release, rewrite, verify

HEAD = ["audit", "head", "--out", "out", "--public-key", "audit.key.pub"]


def test_a_key_pair_is_made_once_with_the_right_modes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its owner can read the private key, and no key file is ever overwritten."""
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
    """Exit code 0; the output says what was checked, and what would not be noticed."""
    assert main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub"]) == EXIT_OK
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "1 chains, 4 entries: 4 signed, 0 unsigned",
        "no published head was given, so a chain that was cut would not be noticed: add --head",
        "4 reports and 3 cases of the outbox checked",
        "intact",
    ]


@pytest.mark.parametrize("before", ["\ufeff", "host: "])
def test_a_published_head_is_never_passed_over(
    spool: Spool, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    """Neither a byte-order mark nor a prefix makes a line with a head one without."""
    (chain,) = spool.audit.iterdir()
    Path("heads.txt").write_text(
        f"{before}ctdeface-audit {chain.name} 9 {'0' * 64}\n", encoding="utf-8"
    )
    capsys.readouterr()
    assert main(
        ["audit", "verify", "--out", "out", "--public-key", "audit.key.pub", "--head", "heads.txt"]
    ) in {
        EXIT_REFUSED,
        EXIT_CONFIGURATION,
    }


def test_collected_cases_are_no_problem_and_are_counted(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Released cases and reports may be taken away; a replaced output counts once."""
    shutil.rmtree(spool.outbox / "c")
    assert verify(capsys) == (EXIT_OK, [])
    main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("note: ")] == [
        "note: c is no longer in the outbox",
        "note: 1 entries are of released cases that are no longer in the outbox",
    ]
    for gone in (spool.outbox / "a", spool.reports / "a", spool.reports / "c"):
        shutil.rmtree(gone)
    assert verify(capsys) == (EXIT_OK, [])
    main(["audit", "verify", "--out", "out", "--public-key", "audit.key.pub"])
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("note: ")] == [
        (
            "note: 2 entries are of released cases without a report, so it is unknown "
            "whether they are in the outbox: jobs newer, one"
        )
    ]


def test_no_head_of_a_chain_with_problems_is_printed(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Altered entries, a cut chain and unchecked signatures have no head to publish."""
    root = spool.audit.parent
    assert main(HEAD) == EXIT_OK
    Path("heads.txt").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main([*HEAD, "--head", "heads.txt"]) == EXIT_OK
    assert capsys.readouterr().out == Path("heads.txt").read_text(encoding="utf-8")
    whole = lines_of(root)
    for lines, more, said in (
        (whole[1:], [], "follows entry 0"),
        (
            [whole[0], whole[1].replace(b"released", b"rejected"), *whole[2:]],
            [],
            "the signature of entry 2 is wrong",
        ),
        (whole[:2], ["--head", "heads.txt"], "entry 4 was published and is gone"),
    ):
        rewrite(root, lines)
        assert main([*HEAD, *more]) == EXIT_REFUSED
        told = capsys.readouterr()
        assert told.out == ""
        assert said in told.err
        assert "no head is printed" in told.err
    rewrite(root, whole)
    assert main(["audit", "head", "--out", "out"]) == EXIT_CONFIGURATION
    assert "--public-key" in capsys.readouterr().err


def test_a_published_head_shows_a_tail_that_is_gone_with_all_it_was_about(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Output, report and entry of a case vanish; only a published head shows it."""
    root = spool.audit.parent
    capsys.readouterr()
    for name, more in (("heads.txt", ()), ("heads.json", ("--json",))):
        assert main([*HEAD, *more]) == EXIT_OK
        Path(name).write_text(capsys.readouterr().out, encoding="utf-8")
        assert verify(capsys, "--head", name) == (EXIT_OK, [])
    rewrite(root, lines_of(root)[:2])
    for gone in (spool.outbox / "c", spool.reports / "c"):
        shutil.rmtree(gone)
    assert verify(capsys) == (EXIT_OK, [])
    for name in ("heads.txt", "heads.json"):
        (head,) = verify(capsys, "--head", name)[1]
        assert head.endswith("entry 4 was published and is gone: the chain was cut")


def test_without_the_key_nothing_signed_is_called_intact(
    spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78 and the missing option; a wrong key is reported for each entry."""
    capsys.readouterr()
    assert main(["audit", "verify", "--out", str(spool.outbox)]) == EXIT_CONFIGURATION
    assert "--public-key" in capsys.readouterr().err
    main(["audit", "key", "other.key"])
    code, told = verify(capsys, public_key="other.key.pub")
    assert code == EXIT_REFUSED
    assert sum("is signed with the unknown key" in problem for problem in told) == 4


def test_unsigned_entries_are_labeled_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the text and in the JSON."""
    made = Spool.beside(tmp_path / "out", tmp_path / "out.ctdeface")
    made.prepare(outbox_mode=0o750)
    with log_in(tmp_path / "out.ctdeface") as log:
        release(made, log, "one")
    assert main(["audit", "verify", "--out", "out"]) == EXIT_OK
    assert "UNSIGNED entries can be forged" in capsys.readouterr().out
    assert main(["audit", "verify", "--out", "out", "--json"]) == EXIT_OK
    told = json.loads(capsys.readouterr().out)
    assert (told["signed"], told["unsigned"]) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--out", "nothing"], "no reports were found at nothing.ctdeface/reports"),
        (["verify", "--out", "out", "--public-key", "nothing.pub"], "cannot be read"),
        (["verify", "--out", "out", "--public-key", "audit.key"], "give the .pub file"),
        (["verify", "--out", "out", "--head", "audit.key"], "contains no readable heads"),
        (["key", "nowhere/audit.key"], "cannot be written"),
    ],
)
@pytest.mark.usefixtures("spool")
def test_what_must_be_put_right_first_is_told_in_a_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 78, as for every command."""
    assert main(["audit", *arguments]) == EXIT_CONFIGURATION
    assert said in capsys.readouterr().err
