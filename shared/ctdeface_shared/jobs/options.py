"""The options of a job.

They are part of its identity: the same drop with other options is another job.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

HIGHEST_FILL_HU = -800
"""A brighter fill could be taken for tissue and show the mask's outline as a surface."""

USUAL_SEGMENTER = "network"
"""The default segmenter (decision 0010)."""


class Profile(StrEnum):
    """What the face mask covers."""

    SOFT_TISSUE = "soft-tissue"
    BULKY = "bulky"


class HeaderPolicy(StrEnum):
    """What happens to the headers of released instances."""

    PRESERVE = "preserve"
    ANNOTATE = "annotate"


class OnSeriesFailure(StrEnum):
    """What happens to a case with a failed series."""

    QUARANTINE = "quarantine"
    WITHHOLD = "withhold"


class Originals(StrEnum):
    """What happens to dropped files of an ended job."""

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
    """The rule for the fill value.

    Attributes:
        kind: the case's own air, the 10th percentile (as CTA-DEFACE does) or a fixed value.
        hu: the fixed value in HU; None for the other kinds.
    """

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
                f"the fill {text!r} is not known; air, p10 or a whole number of HU is required"
            ) from None
        if hu > HIGHEST_FILL_HU:
            raise ValueError(
                f"a fill of {hu} HU could be taken for tissue; "
                f"at most {HIGHEST_FILL_HU} HU is allowed"
            )
        return cls(kind=FillKind.FIXED, hu=hu)

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return str(self.hu) if self.kind is FillKind.FIXED else self.kind.value


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaceOptions:
    """Everything that changes the output for a given input.

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
        """Return plain values for JSON: reports, messages and the digest.

        The key `withhold` is left out if it is empty, so that older workers accept the message.
        """
        plain = {**asdict(self), "fill": str(self.fill), "withhold": sorted(set(self.withhold))}
        return {name: value for name, value in plain.items() if name != "withhold" or value}

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the plain values in a stable order."""
        return hashlib.sha256(json.dumps(self.as_plain(), sort_keys=True).encode()).hexdigest()
