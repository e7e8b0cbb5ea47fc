"""Sets up .venv beside pyproject.toml: pinned versions, CPU build of PyTorch, no CUDA.

Needs only the standard library and returns immediately if nothing changed since the last set-up.
Checks that pip would select the CPU build before it installs PyTorch: first with the user's own
pip configuration, then with PyTorch's public CPU index.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ctdeface-setup"
CONSTRAINTS = ROOT / "constraints.txt"
CPU_INDEX = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")


class SetupError(Exception):
    """A problem that a person must solve, in one line."""


def main() -> int:
    """Set up .venv; on failure print one line and return 78, a configuration error."""
    try:
        if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == fingerprint():
            return 0
        set_up()
    except SetupError as error:
        print(f"ctdeface: {error}", file=sys.stderr)
        return 78
    return 0


def fingerprint() -> str:
    """Return the SHA-256 of everything the set-up depends on, this script included."""
    digest = hashlib.sha256(f"{ROOT} {sys.version}".encode())
    for file in (ROOT / "pyproject.toml", CONSTRAINTS, Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def set_up() -> None:
    """Create .venv where it is missing and install the project with all extras into it."""
    STAMP.unlink(missing_ok=True)
    if not python().is_file():
        print("ctdeface: creating .venv", flush=True)
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(VENV)
    pip("install", "--quiet", "--constraint", str(CONSTRAINTS), "pip", "setuptools")
    index = cpu_index()
    print("ctdeface: installing the pinned versions (a few minutes the first time)", flush=True)
    # Metadata of an earlier build would hide the entry points of this one from what runs here.
    shutil.rmtree(ROOT / "ctdeface.egg-info", ignore_errors=True)
    pip(
        "install",
        "--quiet",
        "--constraint",
        str(CONSTRAINTS),
        *index,
        "--editable",
        f"{ROOT}[watcher,worker,traces,dev,docs]",
    )
    if found := cuda_packages(item["name"] for item in json.loads(pip("list", "--format=json"))):
        raise SetupError(
            f".venv holds CUDA packages ({', '.join(found)}): "
            "run `make clean`, then check your pip configuration"
        )
    STAMP.write_text(fingerprint(), encoding="utf-8")


def cpu_index() -> tuple[str, ...]:
    """Return the pip options that select the CPU build of PyTorch.

    The tuple is empty when the user's own pip configuration selects it; otherwise it names
    PyTorch's public CPU index.
    """
    seen = ""
    for index in ((), CPU_INDEX):
        try:
            plan = planned("torch", index)
        except SetupError as error:
            seen = str(error)
            continue
        if is_cpu_build(plan):
            return index
        seen = "what it offers needs CUDA"
    raise SetupError(
        f"pip finds no CPU build of PyTorch ({seen}): name an index that has one, for example "
        f"`pip config set global.extra-index-url {CPU_INDEX[1]}`, and run make again"
    )


def planned(requirement: str, index: Iterable[str]) -> list[dict[str, str]]:
    """Return name and version of everything that pip would install for a requirement.

    Raises:
        SetupError: pip finds no way to install it.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = (
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            "--constraint",
            str(CONSTRAINTS),
        )
        pip(*asked, *index, requirement)
        return [
            item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]
        ]


def is_cpu_build(plan: list[dict[str, str]]) -> bool:
    """Return True if a plan has neither CUDA packages nor a CUDA build of PyTorch."""
    local = next(item["version"].partition("+")[2] for item in plan if item["name"] == "torch")
    return local in {"", "cpu"} and not cuda_packages(item["name"] for item in plan)


def cuda_packages(names: Iterable[str]) -> list[str]:
    """Return the names of CUDA packages."""
    return sorted(name for name in names if name.lower().startswith(CUDA_PREFIXES))


def python() -> Path:
    """Return the path of the interpreter in .venv."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(*arguments: str) -> str:
    """Run pip in .venv and return its output; a failure raises its last line."""
    command = [str(python()), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise SetupError(f"pip {arguments[0]} failed: {' '.join(last) or 'no message'}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
