"""The project's own source files as syntax trees, for the tests of their shape."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "ctdeface_shared": ROOT / "shared/ctdeface_shared",
    "ctdeface_watcher": ROOT / "watcher/ctdeface_watcher",
    "ctdeface_worker": ROOT / "worker/ctdeface_worker",
}


def modules() -> dict[str, Path]:
    """Dotted name and file of every module of the three packages."""
    found = {}
    for package, folder in PACKAGES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = file
    return found


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def foreign_imports(file: Path) -> set[str]:
    """Top-level names a file imports, at any depth, ours and relative ones left out."""
    names: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - set(PACKAGES)


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def files_with_tests() -> list[Path]:
    """Every file with tests."""
    return sorted((ROOT / "tests").rglob("test_*.py"))
