"""The memory that each case may use, from machine, container and settings."""

from pathlib import Path

import pytest

from ctdeface_shared.local_service.run import environment_of
from ctdeface_shared.settings.loading import Settings
from ctdeface_shared.settings.memory import available_bytes, with_memory_share
from ctdeface_shared.settings.sections import WorkSection
from ctdeface_shared.settings.service import find_service

GIB = 1 << 30
UNLIMITED_V1 = "9223372036854771712"


def machine(root: Path, group: str, limits: dict[str, str], total_gib: int = 64) -> Path:
    """Write what Linux shows of memory and control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemFree: 1 kB\nMemTotal: {total_gib << 20} kB\n")
    (root / "proc/self/cgroup").write_text(group)
    for name, limit in limits.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("group", "limits", "gib"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"memory.max": "max"}, 64),
        ("0::/\n", {"memory.max": str(6 * GIB)}, 6),
        ("0::/a.slice/b.service\n", {"a.slice/b.service/memory.max": str(8 * GIB)}, 8),
        (
            "0::/a.slice/b.service\n",
            {"a.slice/b.service/memory.max": "max", "a.slice/memory.max": str(7 * GIB)},
            7,
        ),
        ("0::/not/visible/in/a/container\n", {"memory.max": str(5 * GIB)}, 5),
        ("4:cpu,memory:/x\n", {"memory/x/memory.limit_in_bytes": str(4 * GIB)}, 4),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": str(3 * GIB)}, 3),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": UNLIMITED_V1}, 64),
        ("0::/\n", {"memory.max": str(128 * GIB)}, 64),
    ],
)
def test_the_lowest_limit_of_machine_and_groups_counts(
    tmp_path: Path, group: str, limits: dict[str, str], gib: int
) -> None:
    """Both versions of control groups, also those around the process's own."""
    assert available_bytes(machine(tmp_path, group, limits)) == gib * GIB


def test_without_proc_the_memory_is_unknown_and_not_limited(tmp_path: Path) -> None:
    """Other systems have none."""
    assert available_bytes(tmp_path) is None
    assert with_memory_share(Settings(), 2, tmp_path).work.memory_limit_gb is None


def test_each_case_has_an_equal_share_with_some_left_for_the_others(tmp_path: Path) -> None:
    """85 % of ten GiB for two cases."""
    root = machine(tmp_path, "0::/\n", {}, total_gib=10)
    shared = with_memory_share(Settings(), 2, root)
    assert shared.work.memory_limit_gb == pytest.approx(0.85 * 10 * GIB / 2 / 1e9)


@pytest.mark.parametrize("limit_gb", [0, 3.5])
def test_a_limit_that_is_set_stays(tmp_path: Path, limit_gb: float) -> None:
    """0 turns the limit off."""
    root = machine(tmp_path, "0::/\n", {})
    settings = Settings(work=WorkSection(memory_limit_gb=limit_gb))
    assert with_memory_share(settings, 2, root).work.memory_limit_gb == limit_gb


def test_this_machine_has_memory() -> None:
    """The real files can be read."""
    assert (available_bytes() or GIB) > 100_000_000


def test_the_workers_of_a_local_service_share_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has one case, and does not know of the others."""
    monkeypatch.chdir(tmp_path)
    service = find_service(None, tmp_path)
    memory = available_bytes()
    if memory is None:
        pytest.skip("this system does not tell its memory")
    limit_gb = float(environment_of(service, 4)["CTDEFACE_WORK__MEMORY_LIMIT_GB"])
    assert limit_gb == pytest.approx(0.85 * memory / 4 / 1e9)
