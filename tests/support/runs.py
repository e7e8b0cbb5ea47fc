"""Run cases through the pipeline, and read the output with pydicom alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from ctdeface_shared.jobs.options import DefaceOptions
from ctdeface_worker.pipeline.pipeline import deface_case
from ctdeface_worker.pipeline.result import CaseResult, FileResult
from ctdeface_worker.pipeline.task import CaseTask
from ctdeface_worker.segmentation.base import Segmenter
from ctdeface_worker.segmentation.choice import segmenter_named

OPTIONS = DefaceOptions()
UID_KEY = b"a key of the tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One case that was worked on.

    Attributes:
        source: the case.
        staged: what would be published if the result says so.
        result: the pipeline's answer.
    """

    source: Path
    staged: Path
    result: CaseResult

    @property
    def outputs(self) -> set[str]:
        """Names of all files that were staged."""
        return {
            path.relative_to(self.staged).as_posix()
            for path in self.staged.rglob("*")
            if path.is_file()
        }

    def file(self, name: str) -> FileResult:
        """What the result says about one file of the case."""
        return next(file for file in self.result.files if file.file == name)

    def released(self, series: str | None = None) -> Iterator["Pair"]:
        """Yield input and output of every released file, of one series or of all."""
        for file in self.result.files:
            if file.output_sha256 and series in {None, file.series}:
                yield Pair(
                    name=file.file,
                    before=pydicom.dcmread(self.source / file.file),
                    after=pydicom.dcmread(self.staged / file.file),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One file before and after."""

    name: str
    before: pydicom.Dataset
    after: pydicom.Dataset

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Which stored values differ, (row, column)."""
        return np.asarray(stored(self.before) != stored(self.after))


def stored(dataset: pydicom.Dataset) -> NDArray[Any]:
    """Return the stored integers, (row, column)."""
    return np.asarray(dataset.pixel_array)


def run_case(
    source: Path, folder: Path, options: DefaceOptions = OPTIONS, segmenter: Segmenter | None = None
) -> Run:
    """Deface one case into sub-folders of a folder."""
    staged, work = folder / "staged", folder / "work"
    for made in (staged, work):
        made.mkdir(parents=True)
    task = CaseTask(source=source, staged=staged, work=work, options=options, uid_key=UID_KEY)
    result = deface_case(task, segmenter or segmenter_named(options.segmenter), lambda _: None)
    return Run(source=source, staged=staged, result=result)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
