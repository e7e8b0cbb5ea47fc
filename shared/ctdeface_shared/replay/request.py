"""The order for a replay: written beside the job's future report before anything is moved, so that an interrupted replay can go on.

The watcher sees in it that originals which lie in the inbox again have their job already.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctdeface_shared.errors import PermanentError
from ctdeface_shared.jobs.history import ORDER, REPORT
from ctdeface_shared.jobs.messages import DefaceJob, decode_job, encode_job
from ctdeface_shared.jobs.options import (
    DefaceOptions,
    FillRule,
    HeaderPolicy,
    OnSeriesFailure,
    Profile,
)
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.spool import PRIVATE, Spool, case_path


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What a replay does differently; None leaves an option as it was.

    Attributes:
        profile: what the face mask covers.
        segmenter: what finds the face.
        fill: the rule for the fill value.
        withhold: series to leave out.
    """

    profile: Profile | None = None
    segmenter: str | None = None
    fill: FillRule | None = None
    withhold: Sequence[str] | None = None

    def over(self, options: DefaceOptions) -> DefaceOptions:
        """Return the options that follow."""
        return replace(
            options,
            profile=self.profile or options.profile,
            segmenter=self.segmenter or options.segmenter,
            fill=self.fill or options.fill,
            withhold=options.withhold
            if self.withhold is None
            else tuple(sorted(set(self.withhold))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """A replay.

    Attributes:
        job: what is published.
        replays: id of the job that it repeats; empty when none had begun.
        published: whether the queue has confirmed it.
    """

    job: DefaceJob
    replays: str = ""
    published: bool = False


def write_order(spool: Spool, order: ReplayRequest) -> None:
    """Write an order, or replace it, durably.

    Raises:
        StorageUnavailable: it could not be written.
        InvalidMessage: the job cannot travel.
    """
    folder = case_path(spool.reports, order.job.case) / order.job.job_id
    content = {
        **json.loads(encode_job(order.job)),
        "replays": order.replays,
        "published": order.published,
    }
    with atomic.storage_errors():
        atomic.make_folder(folder, mode=PRIVATE)
        atomic.write_file(
            folder / ORDER, json.dumps(content, indent=1, ensure_ascii=False).encode()
        )


def read_order(spool: Spool, case: str, job_id: str) -> ReplayRequest | None:
    """Return the order of a job, None when it is no replay or the order cannot be read.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        body = (case_path(spool.reports, case) / job_id / ORDER).read_bytes()
        job, content = decode_job(body), json.loads(body)
    except (FileNotFoundError, NotADirectoryError, PermanentError):
        return None
    return ReplayRequest(
        job=job, replays=str(content.get("replays", "")), published=content.get("published") is True
    )


def pending_orders(spool: Spool, case: str) -> Iterator[ReplayRequest]:
    """Yield the replays of a case that have no report.

    Raises:
        OSError: one is there and cannot be read.
    """
    for path in sorted(case_path(spool.reports, case).glob(f"*/{ORDER}")):
        order = (
            None if (path.parent / REPORT).exists() else read_order(spool, case, path.parent.name)
        )
        if order is not None:
            yield order


def drop_order(spool: Spool, order: ReplayRequest) -> None:
    """Forget an order that another one takes the place of."""
    (case_path(spool.reports, order.job.case) / order.job.job_id / ORDER).unlink(missing_ok=True)


def options_of(plain: Mapping[str, Any]) -> DefaceOptions:
    """Read what `DefaceOptions.as_plain` wrote.

    Raises:
        ValueError: an option has a value that is not known here.
        KeyError: one is missing.
    """
    return DefaceOptions(
        profile=Profile(plain["profile"]),
        ears=bool(plain["ears"]),
        fill=FillRule.parse(str(plain["fill"])),
        headers=HeaderPolicy(plain["headers"]),
        on_series_failure=OnSeriesFailure(plain["on_series_failure"]),
        segmenter=str(plain["segmenter"]),
        withhold=tuple(str(name) for name in plain.get("withhold", ())),
    )
