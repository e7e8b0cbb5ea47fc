"""Crafted messages are refused with the right code and reach no other folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.jobs.messages import LARGEST_BYTES, encode_job
from tests.integration.rabbitmq_node import RabbitNode
from tests.integration.test_brokers import put_raw
from tests.integration.test_rabbitmq import send_with_headers
from tests.support.service.local_service import LocalService, configured_service
from tests.support.service.spools import Ends, drop, ends, job_for, reports


@pytest.fixture(params=["sqlite", "rabbitmq"])
def local_service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalService]:
    """Workers, not yet started, on each queue, with a foreign case beside their spool."""
    drop_outside(tmp_path)
    url = None if request.param == "sqlite" else request.getfixturevalue("clean_rabbitmq").url
    made = LocalService(
        folder=tmp_path / "service", service=configured_service(tmp_path / "service", url)
    )
    made.service.prepare()
    yield made
    made.stop()


def drop_outside(root: Path) -> None:
    """Put a case where no job may reach: two levels above the inbox."""
    for name in ("etc", "service/etc", "service/spool/etc"):
        (root / name).mkdir(parents=True)
        (root / name / "plan.txt").write_text("release\n", encoding="utf-8")


def outside(root: Path) -> Iterator[Path]:
    """Yield everything below a folder except the spool, where locks change."""
    for path in root.iterdir():
        if path.name != "spool":
            yield path
            if path.is_dir():
                yield from outside(path)


def seen(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file outside the spool: mode, time and content; folders as well."""
    paths = [path for path in outside(root) if path.name != "workers.log"]
    etc = [*(root / "service/spool/etc").rglob("*"), root / "service/spool/etc"]
    return {
        str(path): (
            path.lstat().st_mode,
            0 if path == root / "service" else path.lstat().st_mtime_ns,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in [*paths, *etc]
    }


def crafted(valid: dict[str, Any], outside: Path) -> dict[str, tuple[bytes, str]]:
    """Bodies by what is wrong with them, and the code that each must get."""

    def about(**changes: object) -> bytes:
        return json.dumps(valid | changes).encode()

    return {
        "upward": (about(case="../../etc"), "EscapingPath"),
        "upward inside": (about(case="a/../../etc"), "EscapingPath"),
        "dot": (about(case="."), "EscapingPath"),
        "absolute": (about(case=str(outside)), "EscapingPath"),
        "nul": (about(case="a\0"), "EscapingPath"),
        "another case": (about(case="link"), "InvalidMessage"),
        "a folder below": (about(case="a/below"), "InvalidMessage"),
        "taken upward": (about(taken="../" * 10 + "ab"), "InvalidMessage"),
        "not taken": (about(taken=""), "InvalidMessage"),
        "half a character": (about(case="\ud800"), "InvalidMessage"),
        "long name": (about(case="a" * 300), "InvalidMessage"),
        "long path": (about(case="/".join(["a" * 200] * 10)), "InvalidMessage"),
        "huge": (about(extra="x" * 200_000), "InvalidMessage"),
        "version": (about(schema_version=99), "UnknownVersion"),
        "no version": (about(schema_version=None), "InvalidMessage"),
        "job": (about(job_id="../../../etc"), "InvalidMessage"),
        "year 1": (about(submitted_at="0001-01-01T00:00:00+14:00"), "InvalidMessage"),
        "year 9999": (about(submitted_at="9999-12-31T23:59:59-12:00"), "InvalidMessage"),
        "next century": (
            about(submitted_at="2099-01-01T00:00:00Z", taken="f" * 32),
            "InvalidMessage",
        ),
        "option": (about(options={**valid["options"], "keep_face": True}), "InvalidMessage"),
        "segmenter": (
            about(options={**valid["options"], "segmenter": "../../evil"}),
            "InvalidMessage",
        ),
        "no json": (b"\x80\x04\x95pickle", "InvalidMessage"),
        "empty": (b"", "InvalidMessage"),
        "list": (b"[]", "InvalidMessage"),
        "deep": (b"[" * 60_000, "InvalidMessage"),
        "number": (b'{"schema_version": 1' + b"0" * 10_000 + b"}", "InvalidMessage"),
    }


def test_crafted_messages_are_dead_letters_and_touch_nothing_outside_the_spool(
    local_service: LocalService, tmp_path: Path
) -> None:
    """Each gets its code, valid jobs continue, and the queue ends empty."""
    drop(local_service.spool, "a")
    (local_service.spool.inbox / "link").symlink_to(tmp_path / "etc")
    (tmp_path / "etc" / "below").mkdir()
    job = job_for(local_service.spool, "a")
    bodies = crafted(json.loads(encode_job(job)), tmp_path / "etc")
    before = seen(tmp_path)
    put_raw(local_service.service.queue, *(body for body, _ in bodies.values()))
    local_service.publish(job)
    local_service.start()
    local_service.until(
        lambda: (
            local_service.depth().dead == len(bodies)
            and ends(local_service.spool).not_ended == ["link"]
        )
    )
    wanted = {body[: LARGEST_BYTES + 1]: code for body, code in bodies.values()}
    letters = local_service.dead_letters()
    assert {one.body[: LARGEST_BYTES + 1]: one.code for one in letters} == wanted
    assert seen(tmp_path) == before
    assert ends(local_service.spool) == Ends(inbox=["link"], outbox=["a"], quarantine=[])
    folders = [path for path in local_service.spool.reports.iterdir() if path.is_dir()]
    assert [folder.name for folder in folders] == ["a"]
    assert len(reports(local_service.spool, "a")) == 1
    depth = local_service.depth()
    assert (depth.ready, depth.delayed, local_service.restarts) == (0, 0, 0)


@pytest.mark.parametrize("forged", [99, -99, 2**63 - 1], ids=str)
def test_forged_attempts_neither_end_a_good_job_nor_keep_a_bad_one(
    clean_rabbitmq: RabbitNode, tmp_path: Path, forged: int
) -> None:
    """A good job is released at its first delivery; a bad one is refused after two attempts."""
    service = configured_service(tmp_path / "service", clean_rabbitmq.url)
    workers = LocalService(folder=tmp_path / "service", service=service)
    service.prepare()
    workers.depth()  # declares the queues
    jobs = {}
    for name, plan in (("bad", "bug"), ("good", "release")):
        drop(workers.spool, name, plan)
        jobs[name] = job_for(workers.spool, name)
        headers = {"x-ctdeface-attempts": forged, "x-delivery-count": forged}
        send_with_headers(BrokerTarget(url=clean_rabbitmq.url), encode_job(jobs[name]), headers)
    try:
        workers.start()
        workers.until(workers.is_idle)
    finally:
        workers.stop()
    assert ends(workers.spool) == Ends(inbox=[], outbox=["good"], quarantine=["bad"])
    assert workers.logged("attempt_begun", jobs["good"].job_id) == [1]
    assert workers.logged("attempt_begun", jobs["bad"].job_id) == [1, 2]
