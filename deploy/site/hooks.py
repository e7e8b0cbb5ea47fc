"""Hooks of MkDocs: add generated pages, reports, and linked files from outside docs/."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # MkDocs loads this file by its path
    sys.path.insert(0, str(ROOT))

from deploy.site import pictures, reference  # noqa: E402  needs the path above

DOCS = ROOT / "docs"
MOVED = {
    ROOT / "CONTRIBUTING.md": "develop/contributing.md",
    ROOT / "CHANGELOG.md": "develop/changelog.md",
    ROOT / "README.md": "index.md",
}
"""Pages outside docs/ and their places in the site."""
_LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, /, *, config: MkDocsConfig) -> Files:
    """Add pages and files that are not in docs/."""
    for path, content in reference.pages().items():
        files.append(File.generated(config, path, content=content))
    for source, path in MOVED.items():
        if path != "index.md":
            files.append(
                File.generated(
                    config,
                    path,
                    content=rewritten(source.read_text(encoding="utf-8"), source, path),
                )
            )
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    for path, file in pictures.reports().items():
        files.append(File.generated(config, path, abs_src_path=str(file)))
    for file in sorted(set(_linked_from_pages())):
        files.append(File.generated(config, _place(file), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links that leave docs/ to the place of their files in the site."""
    del config, files
    source = DOCS / page.file.src_uri
    return rewritten(markdown, source, page.file.src_uri) if source.is_file() else markdown


def rewritten(markdown: str, source: Path, path: str) -> str:
    """Rewrite the relative links of a page for the site.

    Args:
        markdown: the text.
        source: the file that the links of the text are relative to.
        path: where the page is in the site.
    """

    def lead(found: re.Match[str]) -> str:
        target = (source.parent / found[1]).resolve()
        if not target.exists() or (
            target.is_file() and target.is_relative_to(DOCS) and source.is_relative_to(DOCS)
        ):
            return found[0]
        up = "../" * path.count("/")
        return f"]({up}{_place(target)}{found[2] or ''})"

    return _LINK.sub(lead, markdown)


def _linked_from_pages() -> Iterator[Path]:
    for page in (*DOCS.rglob("*.md"), *MOVED):
        for link, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if (
                target.is_file()
                and target.is_relative_to(ROOT)
                and not target.is_relative_to(DOCS)
                and target not in MOVED
            ):
                yield target


def _place(file: Path) -> str:
    """Where a file or folder of the project is in the site."""
    if file in MOVED:
        return MOVED[file]
    if file.is_relative_to(DOCS):
        inside = str(file.relative_to(DOCS))
        return f"{inside}/index.md" if file.is_dir() else inside
    return f"files/{file.relative_to(ROOT)}"


def _decisions() -> str:
    rows = []
    for file in sorted((DOCS / "decisions").glob("0*.md")):
        number, title = (
            file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").split(": ", 1)
        )
        rows.append(f"| {number} | [{title}]({file.name}) |")
    return "\n".join(["# Decisions", "", "| number | decision |", "|---|---|", *rows, ""])
