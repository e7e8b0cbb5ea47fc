"""The set-up tells CPU builds of PyTorch from others, and installs nothing without its hash."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from deploy import setup_venv
from deploy.pin_hashes import listing, wheels_on, written
from deploy.setup_venv import (
    CONSTRAINTS,
    CPU_INDEX,
    Planned,
    SetupError,
    Target,
    cpu_index,
    install,
    is_cpu_build,
    line_of,
    listed_wheels,
    locked,
    requirements,
    with_torch,
)


def _plan(version: str, *others: str) -> list[Planned]:
    return [
        Planned("torch", version),
        Planned("sympy", "1.14.0"),
        *(Planned(name, "1") for name in others),
    ]


@pytest.mark.parametrize("version", ["2.13.0+cpu", "2.13.0"])
def test_builds_without_cuda_are_cpu_builds(version: str) -> None:
    """A CPU wheel says so in its version; on macOS the plain version brings nothing of CUDA."""
    assert is_cpu_build(_plan(version))


@pytest.mark.parametrize(
    "plan",
    [
        _plan("2.13.0+cu130"),
        _plan("2.13.0+rocm7.0"),
        _plan("2.13.0", "nvidia-cublas"),
        _plan("2.13.0", "triton"),
        _plan("2.13.0", "cuda-toolkit"),
    ],
    ids=["cuda in the version", "rocm in the version", "nvidia", "triton", "cuda toolkit"],
)
def test_builds_with_cuda_are_not(plan: list[Planned]) -> None:
    """Neither PyPI's default Linux wheel nor one for another accelerator passes."""
    assert not is_cpu_build(plan)


def test_the_public_cpu_index_is_a_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the user's own configuration gives CUDA is PyTorch's index added."""
    monkeypatch.setattr(
        setup_venv,
        "planned",
        lambda _, __, index: _plan("2.13.0+cpu") if index else _plan("2.13.0", "nvidia-nccl"),
    )
    assert cpu_index(Target())[0] == CPU_INDEX
    monkeypatch.setattr(setup_venv, "planned", lambda *_: _plan("2.13.0+cpu"))
    assert cpu_index(Target()) == ((), Planned("torch", "2.13.0+cpu"))


def test_without_a_cpu_build_the_set_up_stops_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to configure, and nothing was installed."""
    monkeypatch.setattr(setup_venv, "planned", lambda *_: _plan("2.13.0", "nvidia-nccl"))
    with pytest.raises(SetupError, match=r"pip config set global\.extra-index-url") as caught:
        cpu_index(Target())
    assert "\n" not in str(caught.value)


TEXT = CONSTRAINTS.read_text(encoding="utf-8")
WHEEL, HASH = next((name, hash_) for name, hash_ in listed_wheels().items() if "+cpu" in name)


def test_a_listed_wheel_of_torch_is_the_only_one_that_is_allowed() -> None:
    """No other wheel of PyTorch passes, and all other packages keep their hashes."""
    changed = with_torch(TEXT, Planned("torch", "2.13.0+cpu", WHEEL, HASH))
    assert f"\ntorch==2.13.0+cpu \\\n    --hash=sha256:{HASH}\n" in changed
    others = locked(TEXT)
    del others["torch"]
    assert locked(changed) == others


@pytest.mark.parametrize("sha256", ["0" * 64, ""])
def test_a_listed_wheel_of_torch_with_another_hash_is_refused(sha256: str) -> None:
    """Before anything of it is installed."""
    with pytest.raises(SetupError, match=WHEEL.replace("+", r"\+")):
        with_torch(TEXT, Planned("torch", "2.13.0+cpu", WHEEL, sha256))


def test_a_wheel_of_torch_that_is_not_listed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """It is installed as the index describes it, never silently."""
    file = "torch-2.13.0+cpu-cp399-cp399-linux_s390x.whl"
    changed = with_torch(TEXT, Planned("torch", "2.13.0+cpu", file, "1" * 64))
    assert f"--hash=sha256:{'1' * 64}" in changed
    assert f"NOT COMPARED: {file}" in capsys.readouterr().out


def test_an_extra_that_does_not_exist_is_refused() -> None:
    """The message names those that do."""
    assert "pika>=1.3" in requirements(["watcher"])
    with pytest.raises(SetupError, match="watcher"):
        requirements(["watchers"])


def test_the_tools_of_the_set_up_have_hashes() -> None:
    """The programs that install and build the rest."""
    for name in setup_venv.TOOLS:
        assert "--hash=sha256:" in line_of(TEXT, name)


def install_of(folder: Path, line: str) -> None:
    """Ask pip to install a wheel of a folder by a line of a requirements file."""
    wheel = folder / "known-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr(
            "known-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: known\nVersion: 1"
        )
        made.writestr("known-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        made.writestr("known-1.dist-info/RECORD", "")
    wanted = folder / "wanted.txt"
    wanted.write_text(line.format(hashlib.sha256(wheel.read_bytes()).hexdigest()), encoding="utf-8")
    offline = ("--dry-run", "--no-index", "--find-links", str(folder))
    install(
        Target(folder=Path(sys.prefix)), *offline, "--require-hashes", "--requirement", str(wanted)
    )


@pytest.mark.parametrize("line", [f"known==1 --hash=sha256:{'0' * 64}", "known==1", "known"])
def test_a_file_without_its_hash_is_not_installed(tmp_path: Path, line: str) -> None:
    """With pip itself and a wheel in a folder; the one line names package and remedy."""
    with pytest.raises(SetupError, match=r"known.* has no file whose SHA-256 .*make hashes"):
        install_of(tmp_path, line)


def test_a_file_with_its_hash_is_installed(tmp_path: Path) -> None:
    """The same wheel with the right hash."""
    install_of(tmp_path, "known==1 --hash=sha256:{}")


def test_hashes_are_written_back_as_they_are_read() -> None:
    """Comments stay, packages are sorted, and hashes follow their version."""
    found = locked(TEXT)
    assert written(TEXT, found, {name: hashes for name, (_, hashes) in found.items()}) == TEXT


def test_cpu_wheels_are_read_from_a_page_of_an_index() -> None:
    """Other versions, Pythons without a lock and free-threaded builds are left out."""
    names = [
        "torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl",
        "torch-2.13.0-cp312-cp312-macosx_14_0_arm64.whl",
        "torch-2.13.0%2Bcpu-cp313-cp313t-manylinux_2_28_x86_64.whl",
        "torch-2.14.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl",
        "torch-2.13.0%2Bcpu-cp312-cp312-linux_s390x.whl",
    ]
    page = "".join(f'<a href="/whl/cpu/{name}#sha256={"a" * 64}">x</a><br/>\n' for name in names)
    found = wheels_on(page, "2.13.0")
    assert list(found) == [
        "torch-2.13.0+cpu-cp312-cp312-manylinux_2_28_x86_64.whl",
        "torch-2.13.0-cp312-cp312-macosx_14_0_arm64.whl",
    ]
    assert listing(found).splitlines()[0] == f"{'a' * 64}  {next(iter(found))}"
