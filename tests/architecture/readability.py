"""Measures how the code and the pages read: `python -m tests.architecture.readability [PACKAGE]`.

Prints one figure per line; with a package such as `ctdeface_worker.dicom` it also names each place
that breaks a limit there. `test_readability.py` checks the same figures.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT, modules, tree

MOST_WORDS, MOST_WORDS_MEAN = 18, 9.0
MOST_COLUMNS, MOST_NOQA, MOST_DOC_WORDS = 100, 30, 28_000
MOST_ROOT_FILES = {"ctdeface_shared": 7, "ctdeface_watcher": 8, "ctdeface_worker": 3}

METAPHORS = frozenset(
    {
        *("bench", "bury", "crew", "desk", "fleet", "happening", "harmless", "nobody", "overseer"),
        *("patience", "revival", "revive", "station", "survey", "surveyor", "surroundings"),
        *("tries", "untold"),
    }
)
"""Words that name no thing of queues, folders, images or operating systems."""
STILTED = re.compile(
    r"\b(at once|are told|be told|is told|was told|whoever|whatever|whosoever|nobody|of ours"
    r"|lies|lie in|lies in|is no (?!longer|more)|are no (?!longer|more))\b",
    re.IGNORECASE,
)
"""Phrases that a native reader reads twice."""
MESSAGES_OF_OTHERS = frozenset({"handed_back", "buried"})
"""Values on the wire that keep their spelling: metric labels."""
SERVICES = ("ctdeface_watcher", "ctdeface_worker.service", "ctdeface_worker.case")


def root_files(package: str) -> list[str]:
    """Modules directly below a package root."""
    return sorted(file.name for file in PACKAGES[package].glob("*.py"))


def summaries(names: Iterable[str]) -> dict[str, str]:
    """First docstring line of each module, class and function that has one."""
    found = {}
    for name in names:
        for node in ast.walk(tree(modules()[name])):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = (ast.get_docstring(node) or "").partition("\n")[0]
                if text:
                    found[f"{name}:{getattr(node, 'name', '')}"] = text
    return found


def mean_words(lines: Iterable[str]) -> float:
    """Mean number of words of the lines."""
    counts = [len(line.split()) for line in lines]
    return sum(counts) / max(len(counts), 1)


def too_wide(files: Iterable[Path]) -> list[str]:
    """Lines of more columns than fit."""
    return [
        f"{file.relative_to(ROOT)}:{number}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MOST_COLUMNS
    ]


def python_files() -> list[Path]:
    """Every source file of the repository: packages, tests and deployment scripts."""
    roots = [*PACKAGES.values(), ROOT / "tests", ROOT / "deploy"]
    return sorted(file for root in roots for file in root.rglob("*.py"))


def suppressions() -> list[str]:
    """Places where a check is switched off on a line."""
    return [
        f"{file.relative_to(ROOT)}:{token.start[0]}"
        for file in python_files()
        for token in _tokens(file)
        if token.type == tokenize.COMMENT and "noqa" in token.string
    ]


def metaphors(files: Iterable[Path]) -> list[str]:
    """Identifiers and file names that use a word of `METAPHORS`."""
    found = []
    for file in files:
        found += [
            f"{file.relative_to(ROOT)}:{token.start[0]}: {token.string}"
            for token in _tokens(file)
            if token.type == tokenize.NAME and METAPHORS & _words(token.string)
        ]
        if METAPHORS & _words(file.stem):
            found.append(f"{file.relative_to(ROOT)}: {file.stem}")
    return found


def stilted(files: Iterable[Path]) -> list[str]:
    """Lines of prose that use a phrase of `STILTED`: comments, strings, docstrings and pages."""
    return [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file in files
        for number, text in _prose(file)
        for match in STILTED.finditer(text)
    ]


def pages() -> list[Path]:
    """Every page of the documentation, README and contributor pages included."""
    return sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def doc_words() -> int:
    """Words of all pages."""
    return sum(len(page.read_text(encoding="utf-8").split()) for page in pages())


def service_classes() -> dict[str, str]:
    """Module of each public class of the watcher and of the worker's service."""
    return {
        node.name: name
        for name, file in modules().items()
        if name.startswith(SERVICES)
        for node in tree(file).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def missing_from_glossary() -> list[str]:
    """Public classes of the services that the glossary does not name."""
    glossary = next(page for page in pages() if page.name == "glossary.md")
    text = glossary.read_text(encoding="utf-8")
    return sorted(name for name in service_classes() if f"`{name}`" not in text)


def imports_between_folders() -> dict[str, set[str]]:
    """Which folders and root modules of the three packages each of them imports."""
    known = modules()
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
                target = next((each for each in targets if each in known), node.module)
                if target.partition(".")[0] in PACKAGES and _room(target) != _room(name):
                    graph.setdefault(_room(name), set()).add(_room(target))
    return graph


def import_cycle() -> list[str]:
    """A cycle of imports between folders, or nothing."""
    try:
        tuple(TopologicalSorter(imports_between_folders()).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def imports_by_string() -> list[str]:
    """Strings in shared that name a module of the watcher or the worker."""
    return [
        f"{name}:{node.lineno}"
        for name, file in modules().items()
        if name.startswith("ctdeface_shared")
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.search(r"\bctdeface_(watcher|worker)\b", node.value)
    ]


def report(package: str | None = None) -> Iterator[str]:
    """Yield the figures, and each place in a package that breaks a limit."""
    names = [name for name in modules() if package is None or f"{name}.".startswith(f"{package}.")]
    files = [modules()[name] for name in names]
    found = summaries(names)
    for each in PACKAGES:
        yield f"files at the root of {each}: {len(root_files(each))} of {MOST_ROOT_FILES[each]}"
    words = mean_words(found.values())
    yield f"words of a first docstring line, mean: {words:.1f} of {MOST_WORDS_MEAN}"
    long = {place: text for place, text in found.items() if len(text.split()) > MOST_WORDS}
    yield f"first docstring lines above {MOST_WORDS} words: {len(long)}"
    wide = too_wide(files if package else python_files())
    yield f"lines over {MOST_COLUMNS} columns: {len(wide)}"
    yield f"noqa: {len(suppressions())} of {MOST_NOQA}"
    yield f"words in pages: {doc_words()} of {MOST_DOC_WORDS}"
    yield f"metaphors: {len(metaphors(files))}"
    yield f"stilted phrases: {len(stilted(files))}, in pages {len(stilted(pages()))}"
    yield f"classes missing from the glossary: {' '.join(missing_from_glossary()) or 'none'}"
    yield f"import cycle between folders: {' → '.join(import_cycle()) or 'none'}"
    yield f"imports by string: {len(imports_by_string())}"
    if package is not None:
        yield from (f"{place}: {text}" for place, text in long.items())
        yield from (*too_wide(files), *metaphors(files), *stilted(files))


def _tokens(file: Path) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline))


def _prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text of what a person reads in a file."""
    if file.suffix == ".md":
        yield from enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        return
    for token in _tokens(file):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            yield from enumerate(token.string.splitlines(), token.start[0])


def _words(identifier: str) -> set[str]:
    """Words of a name in snake_case or CamelCase, in lower case."""
    if identifier in MESSAGES_OF_OTHERS:
        return set()
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def _room(module: str) -> str:
    """Folder of a module below its package root, or the module itself where it has none."""
    return ".".join(module.split(".")[:2])


if __name__ == "__main__":
    print("\n".join(report(*sys.argv[1:2])))
