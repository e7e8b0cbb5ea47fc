"""One finding of `ctdeface doctor`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Grade(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of one check.

    Attributes:
        grade: a problem keeps the service from working; a warning needs a person's judgment.
        about: what was checked, in one word.
        text: one sentence, with what to do unless the grade is ok.
    """

    grade: Grade
    about: str
    text: str

    def as_plain(self) -> dict[str, Any]:
        """Return the finding for JSON; scripts read these keys."""
        return {"grade": self.grade, "about": self.about, "said": self.text}


def ok(about: str, text: str) -> Finding:
    """Report that nothing needs to be done."""
    return Finding(grade=Grade.OK, about=about, text=text)


def warning(about: str, text: str) -> Finding:
    """Report something that needs a person's judgment."""
    return Finding(grade=Grade.WARNING, about=about, text=text)


def problem(about: str, text: str) -> Finding:
    """Report something that keeps the service from working."""
    return Finding(grade=Grade.PROBLEM, about=about, text=text)
