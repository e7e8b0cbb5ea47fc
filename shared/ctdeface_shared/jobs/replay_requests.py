"""Replay requests, in files `order.json`.

A request is in the report folder of the job that the replay publishes. It is written before
anything is moved, so that an interrupted replay can be continued in the taken folder that it names.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.messages import DefaceJob, decode_job, encode_job
from ctdeface_shared.jobs.reports import REPORT
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.bounded import LARGEST_STATE_BYTES, DamagedFile, read_bounded
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path

ORDER = "order.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """The request for a replay.

    Attributes:
        job: the job to publish.
        replays: id of the job that it repeats; empty if none had begun.
        published: whether the queue has confirmed the job.
    """

    job: DefaceJob
    replays: str = ""
    published: bool = False


def write_order(spool: Spool, order: ReplayRequest) -> None:
    """Write or replace a request durably.

    Raises:
        StorageUnavailable: it could not be written.
        InvalidMessage: the job cannot be encoded as a message.
    """
    folder = case_path(spool.reports, order.job.case) / order.job.job_id
    content = {
        **json.loads(encode_job(order.job)),
        "replays": order.replays,
        "published": order.published,
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with atomic.storage_errors():
        atomic.make_folder(folder, mode=PRIVATE)
        atomic.write_file(folder / ORDER, text.encode())


def parse_order(content: bytes) -> ReplayRequest:
    """Read and validate a request.

    Raises:
        PermanentError: the content is not a request of this version.
    """
    job = decode_job(content)
    plain = json.loads(content)
    return ReplayRequest(
        job=job, replays=str(plain.get("replays", "")), published=plain.get("published") is True
    )


def read_order(spool: Spool, case: str, job_id: str) -> ReplayRequest | None:
    """Return the replay request of a job, or None.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        order = case_path(spool.reports, case) / job_id / ORDER
        return parse_order(read_bounded(order, LARGEST_STATE_BYTES))
    except (FileNotFoundError, NotADirectoryError, DamagedFile, PermanentError):
        return None


def pending_orders(spool: Spool, case: str) -> Iterator[ReplayRequest]:
    """Yield the requests whose jobs have no report yet.

    Raises:
        OSError: a file exists and cannot be read.
    """
    for path in sorted(case_path(spool.reports, case).glob(f"*/{ORDER}")):
        if not (path.parent / REPORT).exists():
            order = read_order(spool, case, path.parent.name)
            if order is not None:
                yield order


def drop_order(spool: Spool, order: ReplayRequest) -> None:
    """Remove a request that another one replaces."""
    (case_path(spool.reports, order.job.case) / order.job.job_id / ORDER).unlink(missing_ok=True)
