"""The set-up tells a CPU build of PyTorch from any other before it installs one."""

import pytest

from deploy import setup_venv
from deploy.setup_venv import CPU_INDEX, SetupError, cpu_index, is_cpu_build


def _plan(version: str, *others: str) -> list[dict[str, str]]:
    return [
        {"name": "torch", "version": version},
        {"name": "sympy", "version": "1.14.0"},
        *({"name": name, "version": "1"} for name in others),
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
def test_builds_with_cuda_are_not(plan: list[dict[str, str]]) -> None:
    """Neither PyPI's default Linux wheel nor one for another accelerator passes."""
    assert not is_cpu_build(plan)


def test_the_public_cpu_index_is_a_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the user's own configuration gives CUDA is PyTorch's index added."""
    monkeypatch.setattr(
        setup_venv,
        "planned",
        lambda _, index: _plan("2.13.0+cpu") if index else _plan("2.13.0", "nvidia-nccl"),
    )
    assert cpu_index() == CPU_INDEX
    monkeypatch.setattr(setup_venv, "planned", lambda _, __: _plan("2.13.0+cpu"))
    assert cpu_index() == ()


def test_without_a_cpu_build_the_set_up_stops_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to configure, and nothing was installed."""
    monkeypatch.setattr(setup_venv, "planned", lambda *_: _plan("2.13.0", "nvidia-nccl"))
    with pytest.raises(SetupError, match=r"pip config set global\.extra-index-url") as caught:
        cpu_index()
    assert "\n" not in str(caught.value)
