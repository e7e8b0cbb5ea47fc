"""Sets up .venv beside pyproject.toml: pinned versions with hashes, CPU build of PyTorch, no CUDA.

Needs only the standard library and returns immediately if nothing changed since the last set-up.
Checks that pip would select the CPU build before it installs PyTorch: first with the user's own
pip configuration, then with PyTorch's public CPU index. Every file must have a hash that
`constraints.txt` names; only a CPU wheel that is not in `torch_cpu_wheels.txt` is not compared,
and that is said.

`--into FOLDER EXTRA…` installs the project with these extras into a virtual environment elsewhere.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ctdeface-setup"
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_WHEELS = ROOT / "deploy" / "torch_cpu_wheels.txt"
CPU_INDEX = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
TOOLS = ("pip", "setuptools")
"""Installed first: pip installs the rest, setuptools builds what has no wheel."""
ALL_EXTRAS = ("watcher", "worker", "traces", "dev", "docs")
_LINE = re.compile(
    r"^([a-z0-9-]+)==([0-9][a-z0-9.]*)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)$", re.MULTILINE
)
_UNPROVEN = re.compile(
    r"(?:NOT MATCH THE HASHES|Hashes are required|pinned with ==)[^\n]*\n\s+(\S+)"
)
"""What pip says of a package without a file of a known hash; its name is on the next line."""


@dataclass(frozen=True)
class Target:
    """Where to install what.

    Attributes:
        folder: the virtual environment.
        extras: extras of the project.
        editable: whether to link the project instead of copying it.
    """

    folder: Path = VENV
    extras: tuple[str, ...] = ALL_EXTRAS
    editable: bool = True

    @property
    def python(self) -> Path:
        """Return the path of its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@dataclass(frozen=True)
class Planned:
    """A distribution that pip would install.

    Attributes:
        name: of the distribution.
        version: with the local part.
        file: name of the file.
        sha256: of the file; empty when the index does not tell.
    """

    name: str
    version: str
    file: str = ""
    sha256: str = ""


class SetupError(Exception):
    """A problem that a person must solve, in one line."""


def main(arguments: list[str]) -> int:
    """Set up a virtual environment; on failure print one line and return 78."""
    parser = argparse.ArgumentParser(description="Installs ctdeface with pinned hashes.")
    parser.add_argument("--into", type=Path, help="virtual environment to install into")
    parser.add_argument("extras", nargs="*", help="extras, with --into only")
    options = parser.parse_args(arguments)
    try:
        if options.into:
            set_up(Target(options.into.resolve(), tuple(options.extras), editable=False))
        elif not (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == fingerprint()):
            STAMP.unlink(missing_ok=True)
            set_up(Target())
            STAMP.write_text(fingerprint(), encoding="utf-8")
    except SetupError as error:
        print(f"ctdeface: {error}", file=sys.stderr)
        return 78
    return 0


def fingerprint() -> str:
    """Return the SHA-256 of everything the set-up depends on, this script included."""
    digest = hashlib.sha256(f"{ROOT} {sys.version}".encode())
    for file in (ROOT / "pyproject.toml", CONSTRAINTS, TORCH_WHEELS, Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def set_up(target: Target) -> None:
    """Create the virtual environment where it is missing and install the project into it."""
    if not target.python.is_file():
        print(f"ctdeface: creating {target.folder.name}", flush=True)
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(target.folder)
    text = CONSTRAINTS.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        lock, tools, wanted = (Path(folder) / name for name in ("lock", "tools", "wanted"))
        # The pip that comes with Python may not take hashes from constraints.
        tools.write_text("".join(line_of(text, name) for name in TOOLS), encoding="utf-8")
        install(target, "--require-hashes", "--requirement", str(tools))
        wanted.write_text("\n".join(requirements(target.extras)), encoding="utf-8")
        index: tuple[str, ...] = ()
        if "worker" in target.extras:
            index, torch = cpu_index(target)
            text = with_torch(text, torch)
        lock.write_text(text, encoding="utf-8")
        print("ctdeface: installing the pinned versions (a few minutes the first time)", flush=True)
        hashed = ("--require-hashes", "--constraint", str(lock), "--requirement", str(wanted))
        # What has no wheel is built with the setuptools above, not with one that has no hash.
        install(target, "--no-build-isolation", *index, *hashed)
    # Metadata of an earlier build would hide the entry points of this one from what runs here.
    shutil.rmtree(ROOT / "ctdeface.egg-info", ignore_errors=True)
    ours = ("--editable", str(ROOT)) if target.editable else (str(ROOT),)
    install(target, "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", *ours)
    installed = json.loads(pip(target, "list", "--format=json"))
    if found := cuda_packages(item["name"] for item in installed):
        raise SetupError(
            f"{target.folder} holds CUDA packages ({', '.join(found)}): "
            "remove it (`make clean`), then check your pip configuration"
        )


def requirements(extras: Iterable[str]) -> list[str]:
    """Return what the project and its extras ask for.

    Raises:
        SetupError: it has no such extra.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    if unknown := sorted(set(extras) - set(known)):
        raise SetupError(f"no extra is named {unknown[0]}: choose from {', '.join(known)}")
    return [*project["dependencies"], *(line for extra in extras for line in known[extra])]


def locked(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return version and hashes of each package in constraints."""
    return {
        name: (version, tuple(re.findall(r"sha256:(\w+)", hashes)))
        for name, version, hashes in _LINE.findall(text)
    }


def line_of(text: str, name: str) -> str:
    """Return the line of a package in constraints, with its hashes."""
    found = next(match for match in _LINE.finditer(text) if match[1] == name)
    return found[0] + "\n"


def torch_version(text: str) -> str:
    """Return the version of PyTorch in constraints."""
    return locked(text)["torch"][0]


def listed_wheels() -> Mapping[str, str]:
    """Return the hashes of PyTorch's CPU wheels by file name."""
    lines = TORCH_WHEELS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("  ") for line in lines if not line.startswith("#"))
    return {name: hash_ for hash_, name in pairs}


def with_torch(text: str, wheel: Planned) -> str:
    """Return constraints that allow exactly one wheel of PyTorch.

    A wheel that is not listed is allowed as the index describes it, and that is printed.

    Raises:
        SetupError: the wheel is listed with another hash, or has none at all.
    """
    wanted = listed_wheels().get(wheel.file, "")
    if not wheel.sha256 or wanted not in {"", wheel.sha256}:
        raise SetupError(
            f"the index offers {wheel.file} with the SHA-256 {wheel.sha256 or 'not told'}, but "
            f"{TORCH_WHEELS.name} requires {wanted or 'that it is told'}: use another index"
        )
    if not wanted:
        print(
            f"ctdeface: NOT COMPARED: {wheel.file} is not in {TORCH_WHEELS.name}; `make hashes` "
            "adds it where PyTorch's index can be reached",
            flush=True,
        )
    line = f"torch=={wheel.version} \\\n    --hash=sha256:{wheel.sha256}\n"
    return text.replace(line_of(text, "torch"), line)


def cpu_index(target: Target) -> tuple[tuple[str, ...], Planned]:
    """Return the pip options that select the CPU build of PyTorch, and its wheel.

    The options are empty when the user's own pip configuration selects it; otherwise they name
    PyTorch's public CPU index.
    """
    seen = ""
    for index in ((), CPU_INDEX):
        try:
            plan = planned(target, "torch", index)
        except SetupError as error:
            seen = str(error)
            continue
        if is_cpu_build(plan):
            return index, next(item for item in plan if item.name == "torch")
        seen = "what it offers needs CUDA"
    raise SetupError(
        f"pip finds no CPU build of PyTorch ({seen}): name an index that has one, for example "
        f"`pip config set global.extra-index-url {CPU_INDEX[1]}`, and run make again"
    )


def planned(target: Target, requirement: str, index: Iterable[str]) -> list[Planned]:
    """Return everything that pip would install for a requirement.

    Raises:
        SetupError: pip finds no way to install it.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, versions = Path(folder) / "report.json", Path(folder) / "versions.txt"
        # With hashes pip would load the large files, and refuse those for CUDA with another reason.
        found = locked(CONSTRAINTS.read_text(encoding="utf-8")).items()
        lines = [f"{name}=={version}\n" for name, (version, _) in found]
        versions.write_text("".join(lines), encoding="utf-8")
        asked = ("--dry-run", "--ignore-installed", "--report", str(report))
        install(target, *asked, "--constraint", str(versions), *index, requirement)
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [
        Planned(
            name=item["metadata"]["name"],
            version=item["metadata"]["version"],
            file=unquote(item["download_info"]["url"].rpartition("/")[2]),
            sha256=item["download_info"]
            .get("archive_info", {})
            .get("hashes", {})
            .get("sha256", ""),
        )
        for item in items
    ]


def is_cpu_build(plan: Iterable[Planned]) -> bool:
    """Return True if a plan has neither CUDA packages nor a CUDA build of PyTorch."""
    plan = tuple(plan)
    local = next(item.version.partition("+")[2] for item in plan if item.name == "torch")
    return local in {"", "cpu"} and not cuda_packages(item.name for item in plan)


def cuda_packages(names: Iterable[str]) -> list[str]:
    """Return the names of CUDA packages."""
    return sorted(name for name in names if name.lower().startswith(CUDA_PREFIXES))


def install(target: Target, *arguments: str) -> None:
    """Run `pip install` in a virtual environment."""
    pip(target, "install", "--quiet", *arguments)


def pip(target: Target, *arguments: str) -> str:
    """Run pip in a virtual environment and return its output.

    Raises:
        SetupError: it failed.
    """
    options = ("--disable-pip-version-check", "--no-input")
    done = subprocess.run(
        [str(target.python), "-m", "pip", *options, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SetupError(f"pip {arguments[0]} failed: {reason(done.stderr)}")
    return done.stdout


def reason(stderr: str) -> str:
    """Return why pip failed, in one line."""
    if unproven := _UNPROVEN.search(stderr):
        return (
            f"{unproven[1]} has no file whose SHA-256 is in {CONSTRAINTS.name}: use another index, "
            "or `make hashes` after a change of versions"
        )
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
