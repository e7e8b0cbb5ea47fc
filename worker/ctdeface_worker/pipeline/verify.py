"""Read a written series back and verify it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import PermanentError, SeveralHeads, VerificationFailed
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.dicom.volume import LoadedSeries
from ctdeface_worker.dicom.writer import WrittenInstance
from ctdeface_worker.imaging.domain import ExpectedDifference, FaceMask, Volume
from ctdeface_worker.pipeline import fill
from ctdeface_worker.verification import gate, instances
from ctdeface_worker.verification.check import Check
from ctdeface_worker.verification.heads import ONE_HEAD


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedInstance:
    """A written file with verified content.

    Attributes:
        file: posix path relative to the case.
        sha256: of the written file.
        differences: from the input, as expected and found.
        broken_signatures: digital signatures in it that no longer verify.
    """

    file: str
    sha256: str
    differences: tuple[ExpectedDifference, ...]
    broken_signatures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Checks of the gate on one written series.

    Attributes:
        checks: every check, passed or not.
        after: the volume as read back from the written files.
        written: the written files.
    """

    checks: tuple[Check, ...]
    after: Volume
    written: tuple[VerifiedInstance, ...]

    def raise_unless_passed(self) -> None:
        """Refuse the series unless every check passed.

        Raises:
            SeveralHeads: a second head is in view.
            VerificationFailed: another check failed. Either message lists the failed checks.
        """
        failed = [check.message or check.name for check in self.checks if not check.passed]
        if any(check.name in ONE_HEAD and not check.passed for check in self.checks):
            raise SeveralHeads(". ".join(failed))
        if failed or not self.checks:
            raise VerificationFailed(". ".join(failed) or "no check was made; all are required")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFolders:
    """Folders of input and written files."""

    source: Path
    staged: Path


def verify_written(
    loaded: LoadedSeries,
    mask: FaceMask,
    written: Sequence[WrittenInstance],
    folders: CaseFolders,
    options: DefaceOptions,
) -> Verification:
    """Compare the written files with the input.

    Args:
        loaded: the input series.
        mask: voxels that were to be filled.
        written: the written files with their expected differences.
        folders: where both are.
        options: profile and fill rule of the job.

    Raises:
        VerificationFailed: the written files cannot be read back as the same series.
    """
    after, digests = _read_back(loaded, folders.staged, [one.file for one in written])
    fill_hu = fill.fill_value_hu(loaded.volume, options.fill)
    problems: list[str] = []
    for instance, one in zip(loaded.series.instances, written, strict=True):
        found = instances.compare_files(
            folders.source / instance.file,
            folders.staged / one.file,
            instances.ExpectedPixels(
                face=mask.face[one.slice_number],
                fill_stored=fill.fill_stored_value(instance.pixels, fill_hu),
                padding=instance.pixels.padding,
            ),
            one.differences,
        )
        is_copy = digests[one.file] == instance.sha256
        problems += (of_input(problem) if is_copy else problem for problem in found)
    checks = gate.verify_volume(loaded.volume, after, mask.face, profile=options.profile)
    verified = tuple(
        VerifiedInstance(
            file=one.file,
            sha256=digests[one.file],
            differences=one.differences,
            broken_signatures=one.broken_signatures,
        )
        for one in written
    )
    return Verification(
        checks=(files_check(len(written), problems), *checks), after=after, written=verified
    )


def files_check(count: int, problems: Sequence[str]) -> Check:
    """Return the check that the written files have the expected differences only.

    Args:
        count: number of written files.
        problems: "FILE: PROBLEM" each; files with the same problem are listed together.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        file, _, text = problem.partition(": ")
        files[text].append(file)
    listed = [f"{_first_of(names)}: {text}" for text, names in files.items()]
    more = f"; and {len(listed) - 3} more problems" if len(listed) > 3 else ""
    message = "; ".join(listed[:3]) + more
    if not problems:
        message = f"{count} files hold the expected differences and no others"
    return Check(
        name="files_differ_as_expected_only",
        passed=not problems,
        figure=float(len(problems)),
        bound=0.0,
        message=message,
    )


def of_input(problem: str) -> str:
    """Describe a problem of an unchanged copy as the input's."""
    return f"{problem}; this is a defect of the input, copied unchanged: export the file again"


def _first_of(names: Sequence[str]) -> str:
    """Return the first name and the number of others."""
    others = len(names) - 1
    return f"{names[0]} and {others} other files" if others else names[0]


def _read_back(
    loaded: LoadedSeries, staged: Path, names: list[str]
) -> tuple[Volume, dict[str, str]]:
    """Load the written files like a case.

    Returns:
        The volume and the SHA-256 of each file. The bytes are not kept, to save memory.

    Raises:
        VerificationFailed: the files are not the same series with the same order of slices.
    """
    expected = [one.file for one in loaded.series.instances]
    try:
        series = selection.select(reader.read_files(staged, names)).series
        if [[one.file for one in found.instances] for found in series] == [expected]:
            digests = {instance.file: instance.sha256 for instance in series[0].instances}
            return volumes.load(series[0]).volume, digests
    except PermanentError as error:
        raise VerificationFailed(f"the written files cannot be read back: {error}") from error
    raise VerificationFailed(
        f"the written files read back as {len(series)} series or in another order; one series of "
        f"{len(expected)} slices in the order of the input is required"
    )
