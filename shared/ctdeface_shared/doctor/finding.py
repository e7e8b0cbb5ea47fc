"""What `ctdeface doctor` finds out: one sentence for each thing it looked at."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One finding.

    Attributes:
        grade: a problem keeps the service from working; a warning is for a person to judge.
        about: what was looked at, in one word.
        said: a sentence; with what to do where it is not ok.
    """

    grade: Grade
    about: str
    said: str


def ok(about: str, said: str) -> Diagnosis:
    """Nothing to do."""
    return Diagnosis(grade=Grade.OK, about=about, said=said)


def warning(about: str, said: str) -> Diagnosis:
    """For a person to judge."""
    return Diagnosis(grade=Grade.WARNING, about=about, said=said)


def problem(about: str, said: str) -> Diagnosis:
    """Must be put right."""
    return Diagnosis(grade=Grade.PROBLEM, about=about, said=said)
