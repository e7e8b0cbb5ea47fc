"""Series that whoever ordered the job wants to be left out: they are withheld, whatever could have become of them."""

from collections.abc import Collection
from dataclasses import replace

from ctdeface_shared.errors import UnknownSeries, WithheldOnRequest
from ctdeface_worker.dicom.selection import FileFate, Selection
from ctdeface_worker.imaging.domain import Fate, Series

_REASON = "was to be left out"


def check(series: Series, withhold: Collection[str]) -> None:
    """Do nothing for a series that may be worked on.

    Raises:
        WithheldOnRequest: it shall be left out, by its SeriesInstanceUID or, where that holds
            several stacks, by its name.
    """
    if series.series_instance_uid in withhold or series.name in withhold:
        raise WithheldOnRequest(_REASON)


def leave_out(chosen: Selection, withhold: Collection[str]) -> Selection:
    """Withhold the files of such series that have their fate already, so that a damaged one no longer holds back the case.

    Raises:
        UnknownSeries: one of the series is not in the case.
    """
    there = {name for series in chosen.series for name in (series.series_instance_uid, series.name)}
    there |= {fate.series_instance_uid for fate in chosen.others if fate.series_instance_uid}
    missing = sorted(set(withhold) - there)
    if missing:
        raise UnknownSeries(
            f"the series {missing[0]} that was to be left out is not in the case: nothing is released"
        )
    return replace(
        chosen,
        others=tuple(
            _left_out(fate) if fate.series_instance_uid in withhold else fate
            for fate in chosen.others
        ),
    )


def _left_out(fate: FileFate) -> FileFate:
    return replace(fate, fate=Fate.WITHHELD, code=WithheldOnRequest.code, reason=_REASON)
