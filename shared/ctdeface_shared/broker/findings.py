"""What an inspection of a queue says."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is there and what is not.

    Attributes:
        server: kind and version.
        present: what is as it should be.
        wrong: one sentence for each thing that is missing or different, with what to do.
        not_seen: what matters but cannot be seen this way.
    """

    server: str
    present: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    not_seen: tuple[str, ...] = ()
