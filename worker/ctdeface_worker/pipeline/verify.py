"""Proves a written series: reads its files back and puts them before the gate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctdeface_shared.errors import PermanentError, VerificationFailed
from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.dicom import reader, selection
from ctdeface_worker.dicom import volume as volumes
from ctdeface_worker.dicom.volume import LoadedSeries
from ctdeface_worker.dicom.writer import WrittenInstance
from ctdeface_worker.imaging.domain import ExpectedDifference, FaceMask, Volume
from ctdeface_worker.pipeline import fill
from ctdeface_worker.verification import gate, instances
from ctdeface_worker.verification.check import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenInstance:
    """A written file whose content is proven.

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
class Proof:
    """What the gate found.

    Attributes:
        checks: every check, passed or not.
        after: the volume as read back from the written files.
        written: the written files.
    """

    checks: tuple[Check, ...]
    after: Volume
    written: tuple[ProvenInstance, ...]

    def raise_unless_passed(self) -> None:
        """Refuse the series unless every check passed.

        Raises:
            VerificationFailed: names what failed.
        """
        failed = [check.message or check.name for check in self.checks if not check.passed]
        if failed or not self.checks:
            raise VerificationFailed(". ".join(failed) or "nothing was checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the input and the written files of a case lie."""

    source: Path
    staged: Path


def prove(
    loaded: LoadedSeries,
    mask: FaceMask,
    written: Sequence[WrittenInstance],
    places: Places,
    options: DefaceOptions,
) -> Proof:
    """Read the written files back and let the gate compare them with the input.

    Raises:
        VerificationFailed: the written files do not even read back as the same series.
    """
    after, digests = _read_back(loaded, places.staged, [one.file for one in written])
    fill_hu = fill.fill_value_hu(loaded.volume, options.fill)
    problems = [
        problem
        for instance, one in zip(loaded.series.instances, written, strict=True)
        for problem in instances.compare_files(
            places.source / instance.file,
            places.staged / one.file,
            instances.ExpectedPixels(
                face=mask.face[one.slice_number],
                fill_stored=fill.fill_stored_value(instance.pixels, fill_hu),
                padding=instance.pixels.padding,
            ),
            one.differences,
        )
    ]
    files = Check(
        name="files_differ_as_expected_only",
        passed=not problems,
        figure=float(len(problems)),
        bound=0.0,
        message=f"{len(written)} files hold the expected differences and no others"
        if not problems
        else "; ".join(problems[:3]),
    )
    checks = gate.verify_volume(loaded.volume, after, mask.face, profile=options.profile)
    proven = tuple(
        ProvenInstance(
            file=one.file,
            sha256=digests[one.file],
            differences=one.differences,
            broken_signatures=one.broken_signatures,
        )
        for one in written
    )
    return Proof(checks=(files, *checks), after=after, written=proven)


def _read_back(
    loaded: LoadedSeries, staged: Path, names: list[str]
) -> tuple[Volume, dict[str, str]]:
    """Select and load the written files as if they were a case of their own; the same slices must come out in the same order.

    Returns:
        The volume and the SHA-256 of each file; the files' bytes are not kept, which a long series
        would feel.
    """
    try:
        series = selection.select(reader.read_files(staged, names)).series
        if len(series) == 1 and [one.file for one in series[0].instances] == [
            one.file for one in loaded.series.instances
        ]:
            return volumes.load(series[0]).volume, {
                instance.file: instance.sha256 for instance in series[0].instances
            }
    except PermanentError as error:
        raise VerificationFailed(f"the written files cannot be read back: {error}") from error
    raise VerificationFailed("the written files do not read back as the same series")
