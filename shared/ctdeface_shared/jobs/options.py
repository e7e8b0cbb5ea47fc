"""What a user can ask for per job; part of the job's identity, so the same drop with other options is another job."""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

HIGHEST_FILL_HU = -800
"""A fill brighter than this could pass for tissue (and show the mask's outline as a surface)."""

USUAL_SEGMENTER = "network"
"""What finds the face unless somebody chooses (decision 0010)."""


class Profile(StrEnum):
    """What the face mask covers."""

    SOFT_TISSUE = "soft-tissue"
    BULKY = "bulky"


class HeaderPolicy(StrEnum):
    """What happens to the headers of released instances."""

    PRESERVE = "preserve"
    ANNOTATE = "annotate"


class OnSeriesFailure(StrEnum):
    """Whether one failed series holds back the whole case."""

    QUARANTINE = "quarantine"
    WITHHOLD = "withhold"


class Originals(StrEnum):
    """What happens to a dropped case once its outcome is safe on the disk."""

    KEEP = "keep"
    ARCHIVE = "archive"
    DELETE = "delete"


class FillKind(StrEnum):
    """How the fill value is chosen."""

    AIR = "air"
    P10 = "p10"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillRule:
    """The rule for the fill value: the case's own air, the 10th percentile (as CTA-DEFACE does) or a fixed value in HU."""

    kind: FillKind = FillKind.AIR
    hu: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `air`, `p10` or a whole number of HU.

        Raises:
            ValueError: anything else, or a value above -800 HU.
        """
        if text in {FillKind.AIR, FillKind.P10}:
            return cls(kind=FillKind(text))
        try:
            hu = int(text)
        except ValueError:
            raise ValueError(
                f"fill must be air, p10 or a whole number of HU, not {text!r}"
            ) from None
        if hu > HIGHEST_FILL_HU:
            raise ValueError(
                f"a fill of {hu} HU could pass for tissue: choose {HIGHEST_FILL_HU} HU or less"
            )
        return cls(kind=FillKind.FIXED, hu=hu)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return str(self.hu) if self.kind is FillKind.FIXED else self.kind.value


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaceOptions:
    """Everything that changes what comes out for a given input.

    Attributes:
        profile: what the face mask covers.
        ears: whether the ears are removed as well.
        fill: the rule for the fill value.
        headers: what happens to the headers.
        on_series_failure: whether one failed series holds back the case.
        segmenter: what finds the face.
        withhold: SeriesInstanceUIDs, or names of series as reports show them, that shall not be
            released.
    """

    profile: Profile = Profile.SOFT_TISSUE
    ears: bool = False
    fill: FillRule = FillRule()
    headers: HeaderPolicy = HeaderPolicy.PRESERVE
    on_series_failure: OnSeriesFailure = OnSeriesFailure.QUARANTINE
    segmenter: str = USUAL_SEGMENTER
    withhold: tuple[str, ...] = ()

    def as_plain(self) -> dict[str, str | bool | list[str]]:
        """Plain values for JSON: reports, messages and the digest. Without series to withhold nothing is said about them."""
        plain = {**asdict(self), "fill": str(self.fill), "withhold": sorted(set(self.withhold))}
        return {name: value for name, value in plain.items() if name != "withhold" or value}

    @property
    def digest(self) -> str:
        """SHA-256 over the plain values in a stable order."""
        return hashlib.sha256(json.dumps(self.as_plain(), sort_keys=True).encode()).hexdigest()
