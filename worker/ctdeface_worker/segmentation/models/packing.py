"""Pack a trained model for shipping with the package.

The form is plans, data set, one safetensors file and a record.
"""

import json
import shutil
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.files import (
    DATASET,
    OUR_WEIGHTS,
    PLANS,
    RECORD,
    SAFE,
    model_files,
)
from ctdeface_worker.segmentation.models.store import SHIPPED

LARGEST_BYTES = 10_000_000
TRAINING = "training.json"
"""Record of the training that `ctdeface train` writes beside a model."""


def pack(trained: Path, out: Path) -> Path:
    """Write the form that ships.

    Args:
        trained: model folder exported by `ctdeface train`: one network as safetensors, and the
            record of its training.
        out: new folder; `segmentation/model` in the package.

    Raises:
        ConfigurationError: it is not such a folder, or too large to ship.
    """
    files = model_files(trained)
    if len(files.weights) != 1 or files.weights[0].suffix != SAFE:
        raise ConfigurationError(
            f"{trained} does not hold exactly one network as safetensors, which is required to "
            "ship it; export it with `ctdeface train`"
        )
    if files.size > LARGEST_BYTES:
        raise ConfigurationError(
            f"{trained} has {files.size / 1e6:.1f} MB; at most {LARGEST_BYTES / 1e6:.0f} MB are "
            "allowed for a network that ships. Train a smaller network"
        )
    out.mkdir(parents=True)
    for name in (PLANS, DATASET):
        shutil.copyfile(trained / name, out / name)
    shutil.copyfile(files.weights[0], out / OUR_WEIGHTS)
    training = trained / TRAINING
    record = {
        "sha256": model_files(out).digest(),
        "origin": SHIPPED,
        "source": "trained by `ctdeface train`; see docs/trust/model-card.md",
        "training": json.loads(training.read_text(encoding="utf-8"))
        if training.is_file()
        else None,
    }
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return out
