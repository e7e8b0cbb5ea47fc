"""Renders before and after, and what a face detector makes of them."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError, PermanentError
from ctdeface_shared.options import Profile
from ctdeface_worker.evaluation import detector
from ctdeface_worker.evaluation.inputs import Input, load
from ctdeface_worker.evaluation.render import renders
from ctdeface_worker.evaluation.trial import defaced
from ctdeface_worker.preview import write_picture
from ctdeface_worker.segmentation.base import Segmenter

FOLDER = "renders"
FACES = "faces.json"
BEFORE = "before"
DONE = ".done"

Faces = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Input -> before, or segmenter and profile -> view -> probability."""


def draw(inputs: Iterable[Input], segmenters: Sequence[Segmenter], out: Path) -> Iterator[str]:
    """Draw every input before and after each segmenter and profile, but for what is drawn already; yields each name when it is done.

    The folder holds pictures of patients' faces: only its owner can read it.
    """
    root = out / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    wanted = {BEFORE, *(_kind(segmenter.name, profile) for segmenter in segmenters for profile in Profile)}
    for each in inputs:
        if not all((root / each.name / kind / DONE).exists() for kind in wanted):
            _draw(each, segmenters, root / each.name)
            yield each.name


def _draw(wanted: Input, segmenters: Sequence[Segmenter], folder: Path) -> None:
    volume = load(wanted).volume
    pictures = {BEFORE: volume}
    for segmenter in segmenters:
        for profile in Profile:
            try:
                mask = segmenter.segment(volume, profile=profile, ears=False)
            except PermanentError:  # the table says why
                continue
            pictures[_kind(segmenter.name, profile)] = defaced(volume, mask.face)
    for kind, shown in pictures.items():
        for view, picture in renders(shown).items():
            write_picture(picture, folder / kind / f"{view}.png")
        (folder / kind / DONE).touch()


def detect(python: Path, out: Path) -> Faces:
    """Let the detector look at every render, in its own environment, and keep what it sees.

    Raises:
        ConfigurationError: it cannot be run.
    """
    command = [str(python), detector.__file__, str(out / FOLDER)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  the interpreter that the user names
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        message = f"the face detector cannot be run with {python} ({said}); docs/evaluation.md says how to make its environment"
        raise ConfigurationError(message) from error
    faces: dict[str, dict[str, dict[str, float]]] = {}
    for file, probability in json.loads(done.stdout).items():
        name, kind, view = file.removesuffix(".png").split("/")
        faces.setdefault(name, {}).setdefault(kind, {})[view] = probability
    (out / FACES).write_text(json.dumps(faces, indent=1), encoding="utf-8")
    return faces


def _kind(segmenter: str, profile: Profile) -> str:
    return f"{segmenter.replace(':', '-')} {profile}"
