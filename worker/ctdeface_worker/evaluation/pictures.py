"""Renders before and after, and what a face detector makes of them."""

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
from ctdeface_worker.evaluation.run import code_digest
from ctdeface_worker.evaluation.trial import defaced
from ctdeface_worker.imaging.domain import Volume
from ctdeface_worker.pipeline.preview import write_picture
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
    """Yield what is to be seen of an input, None where a segmenter refuses it."""
    volume = load(wanted).volume
    if BEFORE in kinds:
        yield BEFORE, volume
    for segmenter in segmenters:
        for profile in Profile:
            kind = _kind(segmenter.name, profile)
            if kind not in kinds:
                continue
            try:
                yield (
                    kind,
                    defaced(volume, segmenter.segment(volume, profile=profile, ears=False).face),
                )
            except PermanentError:  # the table says why
                yield kind, None


def _draw(shown: Volume | None, folder: Path, mark: str) -> None:
    """Draw five views in place of earlier ones, and mark what they are of."""
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
    """Let the detector look at the renders, in its own environment, and keep what it sees of these inputs and segmenters.

    Raises:
        ConfigurationError: it cannot be run.
    """
    command = [str(python), detector.__file__, str(out / FOLDER)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise ConfigurationError(
            f"the face detector cannot be run with {python} ({said}); docs/trust/evaluation.md says how to make its environment"
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
    """Return what is drawn of every input, with the digests of what makes it."""
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
