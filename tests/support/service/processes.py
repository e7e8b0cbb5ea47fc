"""Memory, files and threads of processes over time, from /proc."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

PROC = Path("/proc")
KIB_PER_MB = 1000.0 / 1.024


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a process holds at one moment.

    Attributes:
        rss_kib: resident memory in KiB.
        files: open file descriptors.
        threads: how many.
    """

    rss_kib: int
    files: int
    threads: int


Holdings: TypeAlias = Mapping[str, Held]
"""By the role of the process, such as `watcher` or `worker 1's child`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A straight line through figures over time, by least squares.

    Attributes:
        per_second: its slope.
        error: standard error of the slope.
    """

    per_second: float
    error: float


def held_by(pid: int) -> Held | None:
    """Look at a process; None when it is gone."""
    try:
        status = dict(
            line.split(":", 1)
            for line in (PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines()
        )
        files = sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
        return Held(
            rss_kib=int(status["VmRSS"].split()[0]), files=files, threads=int(status["Threads"])
        )
    except (OSError, KeyError):
        return None


def children_of(pid: int) -> Sequence[int]:
    """Return the processes that a process has started, oldest first; none when it is gone."""
    try:
        tasks = [task / "children" for task in (PROC / str(pid) / "task").iterdir()]
        return sorted(
            int(child) for task in tasks for child in task.read_text(encoding="ascii").split()
        )
    except OSError:
        return ()


def command_of(pid: int) -> str:
    """Return the command line of a process; empty when it is gone."""
    try:
        return (
            (PROC / str(pid) / "cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    except OSError:
        return ""


def family(roles: Mapping[str, int]) -> Mapping[str, int]:
    """Return these processes and the warm child of each."""
    found = dict(roles)
    for role, pid in roles.items():
        warm = [child for child in children_of(pid) if "spawn_main" in command_of(child)]
        found |= {f"{role}'s child": child for child in warm[-1:]}
    return found


def line_through(points: Sequence[tuple[float, float]]) -> Line:
    """Put a line through points by least squares.

    Args:
        points: seconds and figure.
    """
    if len(points) < 3:
        return Line(per_second=0.0, error=math.inf)
    at, figures = zip(*points, strict=True)
    middle, mean = fmean(at), fmean(figures)
    spread = sum((one - middle) ** 2 for one in at)
    slope = sum((one - middle) * (figure - mean) for one, figure in points) / spread
    rest = sum((figure - mean - slope * (one - middle)) ** 2 for one, figure in points)
    return Line(per_second=slope, error=math.sqrt(rest / (len(points) - 2) / spread))


def at_rest(
    points: Iterable[tuple[float, float]], bucket_seconds: float
) -> Sequence[tuple[float, float]]:
    """Keep the least figure of each span of time: what a process holds between two cases."""
    least: dict[int, tuple[float, float]] = {}
    for at, figure in points:
        bucket = int(at // bucket_seconds)
        if bucket not in least or figure < least[bucket][1]:
            least[bucket] = (at, figure)
    return [least[bucket] for bucket in sorted(least)]


def series_of(
    samples: Sequence[tuple[float, Holdings]], role: str, figure: Callable[[Held], float]
) -> Sequence[tuple[float, float]]:
    """Return one figure of one role over time."""
    return [(at, figure(holdings[role])) for at, holdings in samples if role in holdings]
