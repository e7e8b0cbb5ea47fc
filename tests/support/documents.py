"""Commands and program output that README and docs show, with the marks that say how to test them.

A command is in a block that is indented by four spaces or fenced as `console`. An HTML comment
before the block says what a test cannot see:

    <!-- not run: REASON -->            it cannot run here
    <!-- run by tests/…: REASON -->     another test runs it
    <!-- exits with N -->               its last command ends with N
    <!-- starts and stays: REASON -->   some commands run until they are stopped: up, watch, work
    <!-- each by itself -->             its commands are choices, not steps

A fence of the language `text` has one of these before it:

    <!-- output: printed by the last command -->                    the block before it printed it
    <!-- output: each line is made from messages in the source -->  no command here prints it
    <!-- diagram -->                                                it is not output
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^\s*```(\S*)")
_COMMENT = re.compile(
    r"^\s*<!-- (?:(not run|starts and stays): (.+?)|run by (tests/[\w/.]+)(?:: .+?)?"
    r"|exits with (\d+)|(each by itself)) -->$",
)
_OUTPUT = re.compile(r"^<!-- (output: .+|diagram) -->$")
_EXPLAINED = re.compile(r" {3,}.*$")
"""Words in a second column explain the command."""


class Way(StrEnum):
    """What is to be done with a block of commands."""

    RUN = "run"
    ALONE = "each by itself"
    STAYS = "starts and stays"
    ELSEWHERE = "run by another test"
    NOT_RUN = "not run"


class Source(StrEnum):
    """Where a quoted text comes from."""

    COMMAND = "output: printed by the last command"
    MESSAGES = "output: each line is made from messages in the source"
    DIAGRAM = "diagram"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands that stand together.

    Attributes:
        page: where, relative to the project.
        line: of the first command, from 1.
        commands: in order, continued lines joined.
        way: what is to be done with them.
        reason: why, or the file of the other test.
        exit_code: of the last command.
    """

    page: str
    line: int
    commands: tuple[str, ...]
    way: Way = Way.RUN
    reason: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A quoted text of a page.

    Attributes:
        page: where, relative to the project.
        line: of the fence, from 1.
        lines: what is quoted.
        source: where it comes from.
        command: line of the block of commands before it; 0 without any.
    """

    page: str
    line: int
    lines: tuple[str, ...]
    source: Source
    command: int = 0


def pages() -> tuple[Path, ...]:
    """Every page for readers; decision records describe the past and are left out."""
    below = (page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions")
    return (*sorted(ROOT.glob("*.md")), *sorted(below))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of commands of a page; raises what `read` raises."""
    return read(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8"))


def quotes(page: Path) -> Iterator[Quote]:
    """Yield the quoted texts of a page, and every other fence that is marked as output."""
    name, lines = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8").splitlines()
    commands = [block.line for block in blocks(page)]
    inside = False
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        inside = not inside
        if not inside:
            continue
        before = next((each for each in reversed(lines[: number - 1]) if each.strip()), "")
        mark = _OUTPUT.match(before.strip())
        if mark or fence[1] == "text":
            end = lines.index("```", number)
            yield Quote(
                page=name,
                line=number,
                lines=tuple(lines[number:end]),
                source=Source(mark[1]) if mark else Source.UNKNOWN,
                command=max((each for each in commands if each < number), default=0),
            )


def read(name: str, text: str) -> Iterator[Block]:
    """Yield the blocks of commands of a text.

    Raises:
        ValueError: a comment about running is misspelled, or is before no block.
    """
    lines = text.splitlines()
    marker, at = "", 0
    while at < len(lines):
        begun = at
        if fence := _FENCE.match(lines[at]):
            end = next(
                number for number in range(at + 1, len(lines)) if lines[number].strip() == "```"
            )
            found = (
                [line.removeprefix("$ ") for line in lines[at + 1 : end] if line.startswith("$ ")]
                if fence[1] == "console"
                else []
            )
            at = end + 1
        elif lines[at].startswith("    ") and not lines[at - 1].strip():
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            found = [line.strip() for line in lines[begun:at] if line.strip()]
        else:
            if re.match(r"\s*<!-- (not run|run by|exits|starts|each)", lines[at]):
                marker = lines[at]
            elif lines[at].strip() and marker:
                raise ValueError(f"{name}:{at + 1}: no command follows {marker.strip()}")
            at += 1
            continue
        if found:
            yield _block(name, begun + 1, tuple(_joined(found)), marker)
            marker = ""


def _joined(found: list[str]) -> Iterator[str]:
    """Join lines that end with a backslash, and leave the second column out."""
    begun = ""
    for line in found:
        whole = begun + line
        begun = whole[:-1] if whole.endswith("\\") else ""
        if not begun:
            yield _EXPLAINED.sub("", whole)


def _block(page: str, line: int, commands: tuple[str, ...], marker: str) -> Block:
    if not marker:
        return Block(page=page, line=line, commands=commands)
    read = _COMMENT.match(marker)
    if read is None:
        raise ValueError(f"{page}:{line}: {marker.strip()} is not understood")
    way, reason, test, code, alone = read.groups()
    kind = Way.ELSEWHERE if test else Way(way or alone or Way.RUN)
    return Block(
        page=page,
        line=line,
        commands=commands,
        way=kind,
        reason=test or reason or "",
        exit_code=int(code or 0),
    )
