"""Verification of chains.

It finds altered, missing, moved and foreign entries, wrong keys and cut ends.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctdeface_shared.audit.chain import TORN, chains, read_segment, segment_name, segments
from ctdeface_shared.audit.entry import NOTHING_BEFORE, UNSIGNED, CaseEnd, Entry
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.bounded import DamagedFile

Check = Callable[[bytes, bytes], bool]
"""Returns whether a signature is valid for a content; arguments: signature, content."""
HEAD = "ctdeface-audit"
"""First word of a published head, which identifies the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The signatures to accept.

    Attributes:
        keys: check of the signatures of each known key, by its name; without keys, only unsigned
            entries can be checked.
        allow_unsigned: accept unsigned entries before the signed ones, for those that were written
            before there was a key.
    """

    keys: Mapping[str, Check] = field(default_factory=dict)
    allow_unsigned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of a chain at some time.

    Attributes:
        chain: name of the chain.
        seq: number of the entry.
        digest: digest of the entry.
    """

    chain: str
    seq: int
    digest: str

    @property
    def line(self) -> str:
        """Return the line that is published."""
        return f"{HEAD} {self.chain} {self.seq} {self.digest}"


@dataclass(slots=True, kw_only=True)
class Chain:
    """The entries of a chain and the problems found.

    Attributes:
        name: name of its folder.
        ends: content of its entries, in order.
        digests: digest of each entry, by number.
        head: its last entry; None for an empty chain.
        signed: number of entries with a valid signature of a known key.
        unsigned: number of entries without a signature.
        problems: one line for each sign of tampering or loss.
        notes: one line for each trace of a killed writer, which needs no action.
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
    """Verify every chain in a folder.

    Raises:
        OSError: a chain cannot be read.
    """
    return tuple(inspect_chain(chain, trust) for chain in chains(folder))


def inspect_chain(folder: Path, trust: Trust) -> Chain:
    """Verify one chain from its first to its last line.

    Raises:
        OSError: the chain cannot be read.
    """
    chain = Chain(name=folder.name)
    files = segments(folder)
    unknown = sorted(path.name for path in folder.iterdir() if path not in files)
    chain.problems.extend(f"{name} does not belong there" for name in unknown)
    damaged = b""
    for number, file in enumerate(files, start=1):
        if file.name != segment_name(number):
            chain.problems.append(f"{segment_name(number)} is missing")
            return chain
        try:
            content = read_segment(file)
        except DamagedFile as error:
            chain.problems.append(str(error))
            return chain
        for line in content.splitlines(keepends=True):
            damaged = _take(chain, line, damaged, trust)
        if damaged and number < len(files):
            chain.problems.append(f"{file.name} ends with a damaged line")
            damaged = b""
    if damaged.endswith(b"\n"):
        chain.problems.append("the last line is damaged")
    elif damaged:
        chain.notes.append("the last line is unfinished: its writer was killed, or is writing")
    return chain


def _take(chain: Chain, line: bytes, damaged: bytes, trust: Trust) -> bytes:
    """Add one line to a chain.

    Args:
        chain: the lines so far.
        line: the next line.
        damaged: damaged lines between the last entry and this line.
        trust: the signatures to accept.

    Returns:
        The damaged lines since the last entry; the next entry must contain their digest.
    """
    try:
        if not line.endswith(b"\n"):
            return damaged + line
        entry = Entry.from_line(line[:-1])
    except ValueError:
        return damaged + line
    chain.problems.extend(_link_problems(chain, entry, damaged))
    chain.problems.extend(_signature_problems(chain, entry, trust))
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


def _link_problems(chain: Chain, entry: Entry, damaged: bytes) -> Iterator[str]:
    last = chain.head or Head(chain=chain.name, seq=0, digest=NOTHING_BEFORE)
    if entry.chain != chain.name:
        yield f"entry {entry.seq} belongs to the chain {entry.chain}"
    if entry.seq != last.seq + 1:
        yield (
            f"entry {entry.seq} follows entry {last.seq}: "
            "entries are missing, repeated or out of order"
        )
    elif entry.prev != last.digest:
        yield (
            f"entry {entry.seq} does not continue the entry before it: "
            "one of the two was altered or replaced"
        )
    if entry.torn != (hashlib.sha256(damaged).hexdigest() if damaged else ""):
        yield (
            f"the lines before entry {entry.seq} are not what its writer found there: "
            "an entry was altered"
        )


def _signature_problems(chain: Chain, entry: Entry, trust: Trust) -> Iterator[str]:
    if entry.key == UNSIGNED:
        chain.unsigned += 1
        if chain.signed:
            yield f"entry {entry.seq} is not signed and follows signed ones"
        elif trust.keys and not trust.allow_unsigned:
            yield f"entry {entry.seq} is not signed"
        if entry.signature:
            yield f"entry {entry.seq} is marked as unsigned but has a signature"
    elif entry.key not in trust.keys:
        yield f"entry {entry.seq} is signed with the unknown key {entry.key}"
    elif not trust.keys[entry.key](entry.raw_signature, entry.signed_content):
        yield f"the signature of entry {entry.seq} is wrong"
    else:
        chain.signed += 1


def missing_heads(seen: Sequence[Chain], heads: Sequence[Head]) -> Iterator[str]:
    """Yield a problem for each published head that is missing.

    Args:
        seen: the chains as they are now.
        heads: heads that were published earlier.
    """
    digests = {chain.name: chain.digests for chain in seen}
    for head in heads:
        if head.chain not in digests:
            yield f"the chain {head.chain} is gone: it was published with {head.seq} entries"
        elif head.seq not in digests[head.chain]:
            yield f"{head.chain}: entry {head.seq} was published and is gone: the chain was cut"
        elif digests[head.chain][head.seq] != head.digest:
            yield f"{head.chain}: entry {head.seq} is not the one that was published"


def _read_head(words: Sequence[str]) -> Head:
    """Parse the words of one line with a head.

    Raises:
        ValueError: the line has other words before the head, or words are missing.
    """
    first, chain, seq, digest = words
    if first != HEAD:
        raise ValueError(first)
    return Head(chain=chain, seq=int(seq), digest=digest)


def read_heads(file: Path) -> tuple[Head, ...]:
    """Read published heads, as lines or as JSON.

    Args:
        file: the output of `ctdeface audit head`, with or without `--json`; lines without a head
            are ignored.

    Raises:
        ConfigurationError: the file cannot be read or contains no head.
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
            f"{file} contains no readable heads: give the output of ctdeface audit head"
        )
    return heads
