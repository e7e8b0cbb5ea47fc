"""Writes the hashes of `constraints.txt`: `make hashes`, after its versions were changed.

uv asks the package index for the hashes of all files of each version, whatever the platform.
PyTorch is the exception: its CPU builds are on an index of its own.
"""

import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from deploy.setup_venv import (
    CONSTRAINTS,
    CPU_INDEX,
    ROOT,
    TORCH_WHEELS,
    SetupError,
    listed_wheels,
    locked,
    torch_version,
)

UV = ROOT / ".uv" / "bin" / "uv"
OLDEST_PYTHON = "3.11.0"
"""That pyproject.toml allows; uv refuses a version that cannot be installed there."""
_LINK = re.compile(r'href="[^"#]*/([^"#/]+\.whl)#sha256=([0-9a-f]{64})"')
_WHEEL = re.compile(r"torch-[0-9.]+(\+cpu)?-(cp3\d+)-\2-(manylinux\S+|win_amd64|macosx\S+)\.whl")
_COMMENT = (
    "# SHA-256 of the CPU wheels of PyTorch, in the format of sha256sum. `make hashes` renews it "
    "from PyTorch's index.\n"
)


def main() -> int:
    """Write both files; on failure print one line and return 78."""
    try:
        text = CONSTRAINTS.read_text(encoding="utf-8")
        versions = locked(text)
        wheels = torch_wheels(torch_version(text))
        hashes = {name: found for name, (_, found) in locked(asked(versions)).items()}
        hashes["torch"] = tuple(sorted(wheels.values()))
        CONSTRAINTS.write_text(written(text, versions, hashes), encoding="utf-8")
        TORCH_WHEELS.write_text(_COMMENT + listing(wheels), encoding="utf-8")
    except SetupError as error:
        print(f"ctdeface: {error}", file=sys.stderr)
        return 78
    return 0


def asked(versions: Mapping[str, tuple[str, tuple[str, ...]]]) -> str:
    """Return the lock that uv writes for these versions.

    Raises:
        SetupError: uv cannot write it.
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, made = Path(folder) / "wanted.in", Path(folder) / "made.txt"
        lines = [f"{name}=={version}\n" for name, (version, _) in versions.items()]
        wanted.write_text("".join(lines), encoding="utf-8")
        command = [str(UV), "pip", "compile", str(wanted), "--output-file", str(made), "--quiet"]
        options = ["--universal", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate"]
        done = subprocess.run(
            [*command, *options, "--python-version", OLDEST_PYTHON],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SetupError(f"uv finds no hashes: {done.stderr.strip() or 'no message'}")
        return made.read_text(encoding="utf-8")


def torch_wheels(version: str) -> Mapping[str, str]:
    """Return the hashes of PyTorch's CPU wheels by file name.

    Where PyTorch's index cannot be reached, the list that is there stays.

    Raises:
        SetupError: the index cannot be reached, and the list is of another version.
    """
    url = f"{CPU_INDEX[1]}/torch/"
    try:
        with urllib.request.urlopen(url, timeout=60) as page:  # noqa: S310  https
            found = wheels_on(page.read().decode(), version)
    except OSError as error:
        found = {name: hash_ for name, hash_ in listed_wheels().items() if _is_of(name, version)}
        print(f"ctdeface: PyTorch's index cannot be reached ({error}); its list stays")
    if not found:
        raise SetupError(f"no CPU wheel of torch {version} has a hash: correct its version")
    return found


def wheels_on(page: str, version: str) -> Mapping[str, str]:
    """Return name and hash of each CPU wheel of a version on an index page."""
    links = {unquote(name): hash_ for name, hash_ in _LINK.findall(page)}
    return {
        name: hash_
        for name, hash_ in sorted(links.items())
        if _WHEEL.fullmatch(name) and _is_of(name, version)
    }


def _is_of(name: str, version: str) -> bool:
    return name.split("-")[1].partition("+")[0] == version


def listing(wheels: Mapping[str, str]) -> str:
    """Return wheels in the format of sha256sum."""
    return "".join(f"{hash_}  {name}\n" for name, hash_ in sorted(wheels.items()))


def written(
    text: str,
    versions: Mapping[str, tuple[str, tuple[str, ...]]],
    hashes: Mapping[str, Iterable[str]],
) -> str:
    """Return constraints with the leading comments of a text, and hashes."""
    comments = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
    blocks = [
        " \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{one}" for one in hashes[name])])
        for name, (version, _) in sorted(versions.items())
    ]
    return "".join(comments) + "\n".join(blocks) + "\n"


if __name__ == "__main__":
    sys.exit(main())
