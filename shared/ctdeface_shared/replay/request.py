"""The options that a replay changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctdeface_shared.jobs.options import DefaceOptions, FillRule, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """Changed options; None keeps an option as it was.

    Attributes:
        profile: what the face mask covers.
        segmenter: name of the segmenter.
        fill: rule for the fill value.
        withhold: SeriesInstanceUIDs of the series to leave out.
    """

    profile: Profile | None = None
    segmenter: str | None = None
    fill: FillRule | None = None
    withhold: Sequence[str] | None = None

    def over(self, options: DefaceOptions) -> DefaceOptions:
        """Return the options with these changes."""
        return replace(
            options,
            profile=self.profile or options.profile,
            segmenter=self.segmenter or options.segmenter,
            fill=self.fill or options.fill,
            withhold=options.withhold
            if self.withhold is None
            else tuple(sorted(set(self.withhold))),
        )
