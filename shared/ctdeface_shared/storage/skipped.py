"""Cases, files and folders that had to be left out, so that the others go on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ctdeface_shared.errors import CtDefaceError
from ctdeface_shared.lifecycle import boundary
from ctdeface_shared.storage.bounded import DamagedFile

Result = TypeVar("Result")

_LONGEST_NAME = 200
"""Characters of a name that a warning shows; a nested path can have 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """One thing that was left out.

    Attributes:
        place: folder of the spool, such as "reports".
        name: its name in that folder; may identify a patient; empty for the folder itself.
        reason: a sentence for a person.
        code: class of the error, for metrics and logs.
    """

    place: str
    name: str
    reason: str
    code: str

    @property
    def line(self) -> str:
        """Return a warning with name and reason."""
        path = f"{self.place}/{self.name}" if self.name else self.place
        shown = path if len(path) <= _LONGEST_NAME else f"{path[:_LONGEST_NAME]}…"
        return f"{shown} was left out: {self.reason}"


def attempt(place: str, name: str, work: Callable[[], Result]) -> Result | Skipped:
    """Run the task of one case, file or folder; its error concerns no other.

    A bug is logged with its traceback.

    Args:
        place: folder of the spool.
        name: name of what the task is about.
        work: the task.

    Returns:
        The result, or what was left out and why.
    """

    def with_known_errors() -> Result | Skipped:
        try:
            return work()
        except (OSError, DamagedFile, RecursionError) as error:
            return skipped(place, name, error)

    result = boundary(with_known_errors)
    return skipped(place, name, result) if isinstance(result, Exception) else result


def skipped(place: str, name: str, error: Exception) -> Skipped:
    """Describe what an error left out.

    Args:
        place: folder of the spool.
        name: name of what the error is about.
        error: why it is left out.
    """
    code = type(error).__name__
    return Skipped(place=place, name=name, reason=_reason(error), code=code)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply: remove it"
    if isinstance(error, OSError):
        return f"it cannot be read or moved ({error.strerror or error}): give access, or remove it"
    if isinstance(error, (CtDefaceError, DamagedFile)):
        return str(error)
    return f"an unexpected {type(error).__name__}: see the log"
