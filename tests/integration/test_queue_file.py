"""Files of the embedded queue that earlier versions created."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ctdeface_shared.broker.settlement import Ack
from ctdeface_shared.broker.sqlite import SqliteBroker
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.messages import CaseEvent, EventKind, decode_job, encode_job
from tests.integration.test_brokers import job

EARLIER = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, made INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, lease TEXT,
    lease_end REAL NOT NULL DEFAULT 0{trace}
) STRICT;
CREATE INDEX jobs_due ON jobs (due);
CREATE TABLE dead (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, code TEXT NOT NULL)
    STRICT;
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL) STRICT;
PRAGMA user_version = {layout};
"""


def earlier_file(folder: Path, *, trace: str = ", trace TEXT", layout: int = 1) -> Path:
    """Create the file of an earlier version with one job in it."""
    file = folder / "queue.sqlite3"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(EARLIER.format(trace=trace, layout=layout))
        database.execute("INSERT INTO jobs (body, due) VALUES (?, 0)", (encode_job(job("a")),))
        database.commit()
    return file


@pytest.mark.parametrize("trace", [", trace TEXT", ""], ids=["with events", "before traces"])
def test_a_file_of_an_earlier_version_is_taken_over(tmp_path: Path, trace: str) -> None:
    """Its jobs are delivered, and its table of events is ignored."""
    broker = SqliteBroker(earlier_file(tmp_path, trace=trace))
    delivery = broker.receive(0)
    assert delivery is not None
    assert decode_job(delivery.body).case == "a"
    assert broker.settle(delivery, Ack())
    broker.announce(
        CaseEvent(kind=EventKind.RELEASED, job_id=job("a").job_id, finished_at=datetime.now(UTC))
    )
    broker.close()


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    """The message names both layouts and what to do."""
    with pytest.raises(ConfigurationError, match=r"has layout 2.*needs layout 1.*finish its jobs"):
        SqliteBroker(earlier_file(tmp_path, layout=2))
