"""The options that a replay changes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctdeface_shared.jobs.options import DefaceOptions, FillRule, Profile


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
