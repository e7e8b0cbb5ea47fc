"""The service benchmark runs and prints its figures."""

import re
import subprocess
import sys
from pathlib import Path

from tests.integration.rabbitmq_node import RabbitNode

REDUCED = ("--drops", "1", "--jobs", "20", "--cases", "4", "--rounds", "50000")
LINES = (
    r"latency inotify +([\d.]+) s median +([\d.]+) s longest, after 1 s of quiet",
    r"latency polling +([\d.]+) s median +([\d.]+) s longest, after 1 s of quiet",
    r"queue sqlite +([\d.]+) jobs/s published +([\d.]+) jobs/s received and acknowledged",
    r"queue rabbitmq +([\d.]+) jobs/s published +([\d.]+) jobs/s received and acknowledged",
    (
        r"scaling +([\d.]+) cases/s with 1 worker +([\d.]+) cases/s with 2 workers:"
        r" ([\d.]+) times as fast"
    ),
)


def test_the_benchmark_prints_latency_jobs_per_second_and_scaling(
    clean_rabbitmq: RabbitNode,
) -> None:
    """With few drops, jobs and cases; no case is published before its quiet period is over."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.service",
        *REDUCED,
        "--rabbitmq",
        clean_rabbitmq.url,
    ]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    printed = ended.stdout.splitlines()
    assert len(printed) == len(LINES)
    for line, pattern in zip(printed, LINES, strict=True):
        found = re.fullmatch(pattern, line)
        assert found, line
        assert line.startswith("latency") or all(float(figure) > 0 for figure in found.groups())
