"""Withhold series on request."""

from collections.abc import Collection
from dataclasses import replace

from ctdeface_shared.errors import UnknownSeries, WithheldOnRequest
from ctdeface_worker.dicom.selection import FileFate, Selection
from ctdeface_worker.imaging.domain import Fate, Series

_REASON = "left out on request (--withhold)"


def raise_if_excluded(series: Series, withhold: Collection[str]) -> None:
    """Raise for a series that is to be withheld.

    Args:
        series: a volume of the case.
        withhold: SeriesInstanceUIDs, or names of single stacks as in reports.

    Raises:
        WithheldOnRequest: the series is excluded.
    """
    if series.series_instance_uid in withhold or series.name in withhold:
        raise WithheldOnRequest(_REASON)


def withhold_excluded(selected: Selection, withhold: Collection[str]) -> Selection:
    """Withhold files of excluded series without volume.

    A damaged file of such a series then no longer holds back the case.

    Raises:
        UnknownSeries: an excluded series is not in the case.
    """
    known = {fate.series_instance_uid for fate in selected.others}
    for series in selected.series:
        known |= {series.series_instance_uid, series.name}
    missing = sorted(uid for uid in withhold if uid not in known)
    if missing:
        raise UnknownSeries(
            f"the series {missing[0]} is to be left out and is not in the case; every series of "
            "--withhold must be in it: correct the UID"
        )
    others = tuple(
        _withheld(fate) if fate.series_instance_uid in withhold else fate
        for fate in selected.others
    )
    return replace(selected, others=others)


def _withheld(fate: FileFate) -> FileFate:
    return replace(
        fate, fate=Fate.WITHHELD, code=WithheldOnRequest.code, reason=_REASON, follows=False
    )
