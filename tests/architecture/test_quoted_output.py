"""Every output that a page quotes is printed by the program."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from tests.architecture.sources import modules, tree
from tests.support.documents import Quote, Source, Way, blocks, pages, quotes

QUOTES = [quote for page in pages() for quote in quotes(page)]
FROM_MESSAGES = [quote for quote in QUOTES if quote.source is Source.MESSAGES]
_VALUE = "\0"
_BETWEEN = re.compile(r"\t|  +|: |, |; |[{}\"]+")
"""What separates the parts of a line that come from different messages."""
_LEAST_LITERAL = 0.4
"""Share of a part's letters that come from the message; values with digits do not count."""


@cache
def _templates() -> tuple[re.Pattern[str], ...]:
    """Patterns of the parts of every text and f-string in the three packages."""
    parts = {part for text in _texts() for part in _BETWEEN.split(text) if part.strip(_VALUE)}
    return tuple(re.compile(re.escape(part).replace(_VALUE, "(.+?)")) for part in parts)


def _texts() -> Iterator[str]:
    for file in modules().values():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else _VALUE
                    for part in node.values
                )


def _is_message(part: str) -> bool:
    """Whether a part of a line is a value, or the text of a message with values in it."""
    if not re.search(r"(?<![\w./-])[A-Za-z]{2,}(?![\w/-]*[\d/])", part):
        return True
    alone = " ".join(word for word in part.split() if not re.search(r"\d", word))
    for template in _templates():
        if template.pattern == re.escape(alone):
            return True
        found = template.fullmatch(part)
        if found:
            values = _letters(value for value in found.groups() if not re.search(r"\d", value))
            literal = _letters([template.pattern.replace("(.+?)", "")])
            if literal and literal / (literal + values) >= _LEAST_LITERAL:
                return True
    return False


def _letters(texts: Iterable[str]) -> int:
    return sum(letter.isalpha() for text in texts for letter in text)


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: f"{quote.page}:{quote.line}")
def test_every_quoted_text_has_a_mark(quote: Quote) -> None:
    """A comment says where it comes from."""
    assert quote.source is not Source.UNKNOWN


@pytest.mark.parametrize("quote", FROM_MESSAGES, ids=lambda quote: f"{quote.page}:{quote.line}")
def test_every_quoted_message_is_in_the_source(quote: Quote) -> None:
    """Each part of each line is the text of a message, or a value in it."""
    parts = [part.strip() for line in quote.lines for part in _BETWEEN.split(line)]
    assert not [part for part in parts if part and not _is_message(part)]


@pytest.mark.parametrize(
    "quote",
    [quote for quote in QUOTES if quote.source is Source.COMMAND],
    ids=lambda quote: f"{quote.page}:{quote.line}",
)
def test_output_of_a_command_follows_a_command_that_a_test_runs(quote: Quote) -> None:
    """The block before it is run as a whole, so its output can be compared."""
    (block,) = [
        block
        for page in pages()
        for block in blocks(page)
        if (block.page, block.line) == (quote.page, quote.command)
    ]
    assert block.way is Way.RUN


@pytest.mark.parametrize(
    "part", ["the skin from brow to chin is not gone", "no face in view at all"]
)
def test_a_message_that_the_program_never_prints_is_noticed(part: str) -> None:
    """Invented sentences do not match by chance."""
    assert not _is_message(part)
