"""Every later change of a chain is detected; honest writers raise no alarm."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ctdeface_shared.audit.entry import Entry
from ctdeface_shared.audit.inspection import Head, missing_heads
from ctdeface_shared.audit.keys import PrivateKey, load_public_keys, make_key_pair
from tests.support.service.audited import lines_of, problems, rewrite, seen, trusting, write

JOBS = ("job-1", "job-2", "job-3", "job-4")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """The key that signs."""
    return make_key_pair(tmp_path_factory.mktemp("key") / "audit.key")


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    """The key of somebody else."""
    return make_key_pair(tmp_path_factory.mktemp("other") / "audit.key")


def _changed(line: bytes) -> bytes:
    """The same entry with another outcome, written as entries are."""
    return line.replace(b'"outcome":"released"', b'"outcome":"rejected"')


ATTACKS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "alter one": (
        lambda lines: [lines[0], _changed(lines[1]), *lines[2:]],
        "entry 3 does not continue the entry before it",
    ),
    "alter the last": (
        lambda lines: [*lines[:3], _changed(lines[3])],
        "the signature of entry 4 is wrong",
    ),
    "damage one": (
        lambda lines: [lines[0], lines[1][:-9] + b"\n", *lines[2:]],
        "the lines before entry 3 are not what its writer found",
    ),
    "damage the last": (
        lambda lines: [*lines[:3], lines[3][:-9] + b"\n"],
        "the last line is damaged",
    ),
    "delete one": (lambda lines: [lines[0], *lines[2:]], "entry 3 follows entry 1"),
    "delete the first": (lambda lines: lines[1:], "entry 2 follows entry 0"),
    "reorder two": (
        lambda lines: [lines[0], lines[2], lines[1], lines[3]],
        "entry 3 follows entry 1",
    ),
    "repeat one": (lambda lines: [*lines[:2], *lines[1:]], "entry 2 follows entry 2"),
    "insert an empty line": (
        lambda lines: [lines[0], b"\n", *lines[1:]],
        "the lines before entry 2 are not what its writer found",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_done_to_a_signed_chain_is_found(
    attack: str, key: PrivateKey, tmp_path: Path
) -> None:
    """Altered, damaged, deleted, reordered, repeated and inserted lines are listed by number."""
    write(tmp_path, *JOBS, key=key)
    assert problems(tmp_path, trusting(key.public)) == []
    change, said = ATTACKS[attack]
    rewrite(tmp_path, change(lines_of(tmp_path)))
    assert said in " | ".join(problems(tmp_path, trusting(key.public)))


def test_a_rebuilt_chain_needs_the_key(
    key: PrivateKey, other_key: PrivateKey, tmp_path: Path
) -> None:
    """A chain rewritten from its first entry fails at the signatures."""
    write(tmp_path, *JOBS, key=other_key)
    assert [said.split(" is signed")[0] for said in problems(tmp_path, trusting(key.public))] == [
        f"entry {n}" for n in (1, 2, 3, 4)
    ]
    assert problems(tmp_path, trusting(key.public, other_key.public)) == []


def test_a_signature_of_another_entry_does_not_count(key: PrivateKey, tmp_path: Path) -> None:
    """It is one of exactly this line."""
    write(tmp_path, "job-1", "job-2", key=key)
    first, second = (Entry.from_line(line[:-1]) for line in lines_of(tmp_path))
    rewrite(tmp_path, [first.line + b"\n", second.with_signature(first.raw_signature).line + b"\n"])
    assert problems(tmp_path, trusting(key.public)) == ["the signature of entry 2 is wrong"]


def test_unsigned_entries_do_not_count_where_a_key_is_known(
    key: PrivateKey, tmp_path: Path
) -> None:
    """An option accepts unsigned entries, as from before the key; they are still counted."""
    write(tmp_path, "job-1")
    write(tmp_path, "job-2", key=key)
    assert problems(tmp_path, trusting(key.public)) == ["entry 1 is not signed"]
    (chain,) = seen(tmp_path, trusting(key.public, allow_unsigned=True))
    assert (chain.problems, chain.signed, chain.unsigned) == ([], 1, 1)


def test_a_chain_that_was_cut_is_found_by_a_head_that_was_published(tmp_path: Path) -> None:
    """A head reveals truncated, rewritten and missing chains, which look whole without it."""
    write(tmp_path, *JOBS)
    published = [head for chain in seen(tmp_path) if (head := chain.head) is not None]
    assert list(missing_heads(seen(tmp_path), published)) == []
    rewrite(tmp_path, lines_of(tmp_path)[:2])
    assert problems(tmp_path) == []
    assert list(missing_heads(seen(tmp_path), published)) == [
        "host.1: entry 4 was published and is gone: the chain was cut"
    ]
    write(tmp_path, "job-5", "job-6", "job-7")
    assert problems(tmp_path) == []
    assert list(missing_heads(seen(tmp_path), published)) == [
        "host.1: entry 4 is not the one that was published"
    ]
    gone = [Head(chain="host.9", seq=2, digest="d")]
    assert list(missing_heads(seen(tmp_path), gone)) == [
        "the chain host.9 is gone: it was published with 2 entries"
    ]


def test_a_long_chain_goes_on_in_the_next_segment_and_none_may_be_missing(tmp_path: Path) -> None:
    """Segments are bounded; the first, a middle one and foreign files are told."""
    write(tmp_path, *(f"job-{number}" for number in range(12)), segment_bytes=1500)
    write(tmp_path, *(f"more-{number}" for number in range(3)), segment_bytes=1500)
    folder = tmp_path / "audit" / "host.1"
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"00000{number}.jsonl" for number in (1, 2, 3, 4)]
    assert all(file.stat().st_size < 3000 for file in files)
    assert problems(tmp_path) == []
    assert [json.loads(line)["seq"] for line in lines_of(tmp_path)] == list(range(1, 16))
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert problems(tmp_path) == ["notes.txt does not belong there"]
    (folder / "notes.txt").unlink()
    files[1].unlink()
    assert problems(tmp_path) == ["000002.jsonl is missing"]


def test_an_entry_of_another_chain_is_found(tmp_path: Path) -> None:
    """A whole chain under another name, too."""
    write(tmp_path, "job-1")
    (tmp_path / "audit" / "host.1").rename(tmp_path / "audit" / "host.2")
    assert problems(tmp_path) == ["entry 1 belongs to the chain host.1"]


def test_one_file_holds_the_present_key_and_the_earlier_ones(
    key: PrivateKey, other_key: PrivateKey, tmp_path: Path
) -> None:
    """A key is changed by adding the new public key to the file."""
    write(tmp_path, "job-1", key=key)
    write(tmp_path, "job-2", key=other_key)
    pair = [tmp_path / "one", tmp_path / "two"]
    made = [make_key_pair(file) for file in pair]
    both = tmp_path / "both.pub"
    both.write_bytes(b"".join(file.with_name(f"{file.name}.pub").read_bytes() for file in pair))
    assert [key.name for key in load_public_keys(both)] == [key.name for key in made]
    assert problems(tmp_path, trusting(key.public, other_key.public)) == []
