"""Renders before and after, and face detection."""

import json
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError, PermanentError
from ctdeface_shared.jobs.options import Profile
from ctdeface_worker.evaluation import detector
from ctdeface_worker.evaluation.inputs import Input, content_digest, load
from ctdeface_worker.evaluation.render import renders
from ctdeface_worker.evaluation.results import defaced
from ctdeface_worker.evaluation.run import code_digest
from ctdeface_worker.imaging.domain import Volume
from ctdeface_worker.pipeline.preview import write_picture
from ctdeface_worker.segmentation.base import Segmenter

FOLDER = "renders"
FACES = "faces.json"
BEFORE = "before"
DONE = ".done"
SETUP = "set up its environment as described in docs/trust/evaluation.md"

Faces = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Probability by input, by "before" or segmenter and profile, and by view."""


def draw(inputs: Iterable[Input], segmenters: Sequence[Segmenter], out: Path) -> Iterator[str]:
    """Draw missing renders and yield each input's name.

    There is one render before, and one per segmenter and profile. The folder contains pictures of
    patients' faces, so that only its owner may read it.
    """
    root = out / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    wanted = _kinds(segmenters)
    for each in inputs:
        content = content_digest(each)
        missing = {
            kind
            for kind, digest in wanted.items()
            if _drawn(root / each.name / kind) != f"{content} {digest}"
        }
        if missing:
            for kind, shown in _pictures(each, segmenters, missing):
                _draw(shown, root / each.name / kind, f"{content} {wanted[kind]}")
            yield each.name


def _pictures(
    wanted: Input, segmenters: Sequence[Segmenter], kinds: Collection[str]
) -> Iterator[tuple[str, Volume | None]]:
    """Yield each volume to draw, None if refused."""
    volume = load(wanted).volume
    if BEFORE in kinds:
        yield BEFORE, volume
    for segmenter in segmenters:
        for profile in Profile:
            kind = _kind(segmenter.name, profile)
            if kind not in kinds:
                continue
            try:
                face = segmenter.segment(volume, profile=profile, ears=False).face
                yield kind, defaced(volume, face)
            except PermanentError:  # the table lists the reason
                yield kind, None


def _draw(shown: Volume | None, folder: Path, mark: str) -> None:
    """Replace the five views and mark their content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for view, picture in renders(shown).items() if shown is not None else ():
        write_picture(picture, folder / f"{view}.png")
    (folder / DONE).write_text(mark, encoding="utf-8")


def _drawn(folder: Path) -> str:
    return (folder / DONE).read_text(encoding="utf-8") if (folder / DONE).exists() else ""


def detect(
    python: Path, inputs: Iterable[Input], segmenters: Sequence[Segmenter], out: Path
) -> Faces:
    """Run the detector on the renders, in its own environment.

    Probabilities of other inputs and segmenters in the folder are left out.

    Raises:
        ConfigurationError: the detector cannot be run.
    """
    command = [str(python), detector.__file__, str(out / FOLDER)]
    try:
        done = subprocess.run(  # noqa: S603  the user's interpreter with a script of this package
            command, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise ConfigurationError(
            f"the face detector cannot be run with {python} ({reason}): {SETUP}"
        ) from error
    names, kinds = {each.name for each in inputs}, _kinds(segmenters)
    faces: dict[str, dict[str, dict[str, float]]] = {}
    for file, probability in json.loads(done.stdout).items():
        name, kind, view = file.removesuffix(".png").split("/")
        if name in names and kind in kinds:
            faces.setdefault(name, {}).setdefault(kind, {})[view] = probability
    (out / FACES).write_text(json.dumps(faces, indent=1), encoding="utf-8")
    return faces


def _kinds(segmenters: Sequence[Segmenter]) -> dict[str, str]:
    """Return each kind of render with its digests."""
    code = code_digest()
    return {
        BEFORE: code,
        **{
            _kind(each.name, profile): f"{code} {each.digest}"
            for each in segmenters
            for profile in Profile
        },
    }


def _kind(segmenter: str, profile: Profile) -> str:
    return f"{segmenter.replace(':', '-')} {profile}"
