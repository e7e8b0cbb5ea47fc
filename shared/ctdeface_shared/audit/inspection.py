"""Reads chains back and says what is wrong with them: altered, missing, moved or foreign entries, wrong keys, cut ends."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.audit.chain import TORN, chains, segment_name, segments
from ctdeface_shared.audit.entry import NOTHING_BEFORE, UNSIGNED, CaseEnd, Entry
from ctdeface_shared.errors import ConfigurationError

Check = Callable[[bytes, bytes], bool]
"""Whether a signature is one of a content."""
HEAD = "ctdeface-audit"
"""First word of a published head, which says what the line is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Which signatures count.

    Attributes:
        keys: what checks the signatures of each known key, by its name; without any, only unsigned
            entries can be looked at.
        allow_unsigned: whether unsigned entries count beside signed ones, as those written before
            there was a key.
    """

    keys: Mapping[str, Check] = field(default_factory=dict)
    allow_unsigned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of a chain at some moment.

    Attributes:
        chain: its name.
        seq: number of the entry.
        digest: of the entry.
    """

    chain: str
    seq: int
    digest: str

    @property
    def line(self) -> str:
        """The head as it is published."""
        return f"{HEAD} {self.chain} {self.seq} {self.digest}"


@dataclass(slots=True, kw_only=True)
class Chain:
    """What a chain says, and what is wrong with it.

    Attributes:
        name: of its folder.
        ends: what its entries say, in their order.
        digests: of its entries, by number.
        head: its last entry; None when it has none.
        signed: how many entries have a good signature of a known key.
        unsigned: how many have none.
        problems: what should not be.
        notes: what happens to honest writers as well.
    """

    name: str
    ends: list[CaseEnd] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)
    head: Head | None = None
    signed: int = 0
    unsigned: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_chains(folder: Path, trust: Trust) -> tuple[Chain, ...]:
    """Read every chain below a folder.

    Raises:
        OSError: one cannot be read.
    """
    return tuple(inspect_chain(chain, trust) for chain in chains(folder))


def inspect_chain(folder: Path, trust: Trust) -> Chain:
    """Read one chain from its first to its last line.

    Raises:
        OSError: it cannot be read.
    """
    chain = Chain(name=folder.name)
    files = segments(folder)
    strangers = sorted(path.name for path in folder.iterdir() if path not in files)
    chain.problems.extend(f"{name} does not belong there" for name in strangers)
    damaged = b""
    for number, file in enumerate(files, start=1):
        if file.name != segment_name(number):
            chain.problems.append(f"{segment_name(number)} is missing")
            return chain
        for line in file.read_bytes().splitlines(keepends=True):
            damaged = _take(chain, line, damaged, trust)
        if damaged and number < len(files):
            chain.problems.append(f"{file.name} ends with a damaged line")
            damaged = b""
    if damaged:
        kind = chain.problems if damaged.endswith(b"\n") else chain.notes
        kind.append(
            "the last line is damaged"
            if kind is chain.problems
            else "the last line is unfinished: its writer was killed, or is writing"
        )
    return chain


def _take(chain: Chain, line: bytes, damaged: bytes, trust: Trust) -> bytes:
    """Take one more line in; return the damaged lines that no entry has answered for."""
    try:
        if not line.endswith(b"\n"):
            return damaged + line
        entry = Entry.from_line(line[:-1])
    except ValueError:
        return damaged + line
    chain.problems.extend(_wrong(chain, entry, damaged))
    chain.problems.extend(_wrongly_signed(chain, entry, trust))
    if not all(one.endswith(TORN) for one in damaged.splitlines(keepends=True)):
        chain.problems.append(
            f"a whole line before entry {entry.seq} is damaged: no killed writer leaves such a line"
        )
    elif damaged and entry.torn:
        chain.notes.append(f"a line before entry {entry.seq} is unfinished: its writer was killed")
    chain.ends.append(entry.end)
    chain.digests[entry.seq] = entry.digest
    chain.head = Head(chain=chain.name, seq=entry.seq, digest=entry.digest)
    return b""


def _wrong(chain: Chain, entry: Entry, damaged: bytes) -> Iterator[str]:
    last = chain.head or Head(chain=chain.name, seq=0, digest=NOTHING_BEFORE)
    if entry.chain != chain.name:
        yield f"entry {entry.seq} is one of the chain {entry.chain}"
    if entry.seq != last.seq + 1:
        yield f"entry {entry.seq} follows entry {last.seq}: entries are missing, repeated or out of order"
    elif entry.prev != last.digest:
        yield f"entry {entry.seq} does not continue the entry before it: one of both was altered or replaced"
    if entry.torn != (hashlib.sha256(damaged).hexdigest() if damaged else ""):
        yield f"the lines before entry {entry.seq} are not what its writer found there: an entry was altered"


def _wrongly_signed(chain: Chain, entry: Entry, trust: Trust) -> Iterator[str]:
    if entry.key == UNSIGNED:
        chain.unsigned += 1
        if chain.signed:
            yield f"entry {entry.seq} is not signed and follows signed ones"
        elif trust.keys and not trust.allow_unsigned:
            yield f"entry {entry.seq} is not signed"
        if entry.signature:
            yield f"entry {entry.seq} is called unsigned and has a signature"
    elif entry.key not in trust.keys:
        yield f"entry {entry.seq} is signed with the unknown key {entry.key}"
    elif not trust.keys[entry.key](entry.raw_signature, entry.signed_content):
        yield f"the signature of entry {entry.seq} is wrong"
    else:
        chain.signed += 1


def missing_heads(seen: Sequence[Chain], heads: Sequence[Head]) -> Iterator[str]:
    """Say which published heads are no longer part of their chains.

    Args:
        seen: the chains as they are.
        heads: as they were published at some time.
    """
    there = {chain.name: chain.digests for chain in seen}
    for head in heads:
        if head.chain not in there:
            yield f"the chain {head.chain} is gone: it was published with {head.seq} entries"
        elif head.seq not in there[head.chain]:
            yield f"{head.chain}: entry {head.seq} was published and is gone: the chain was cut"
        elif there[head.chain][head.seq] != head.digest:
            yield f"{head.chain}: entry {head.seq} is not the one that was published"


def _read_head(words: Sequence[str]) -> Head:
    """Read one line that names a head.

    Raises:
        ValueError: something stands before it or is missing.
    """
    first, chain, seq, digest = words
    if first != HEAD:
        raise ValueError(first)
    return Head(chain=chain, seq=int(seq), digest=digest)


def read_heads(file: Path) -> tuple[Head, ...]:
    """Read published heads: lines as `ctdeface audit head` prints them, or its JSON; lines that name no head are passed over.

    Raises:
        ConfigurationError: it cannot be read or holds no head.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        lines = (
            [f"{HEAD} {one['chain']} {one['seq']} {one['digest']}" for one in json.loads(text)]
            if text.startswith("[")
            else text.splitlines()
        )
        words = [line.split() for line in lines]
        heads = tuple(
            _read_head(word) for line, word in zip(lines, words, strict=True) if HEAD in line
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        heads = ()
    if not heads:
        raise ConfigurationError(
            f"{file} holds no heads that can be read: give what ctdeface audit head printed"
        )
    return heads
