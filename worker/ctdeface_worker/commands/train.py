"""Train the network that finds faces, and export the model.

The data set is made first. After an interruption the same command resumes.
"""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED
from ctdeface_shared.storage.checksum import sha256_of

if TYPE_CHECKING:
    from ctdeface_worker.training.dataset import Folders
    from ctdeface_worker.training.examples import Example

SEEDS_APART = 100_000
"""Difference of the first phantom seeds of two training seeds."""

EXAMPLES = """\
examples:
  ctdeface train work
      300 phantoms, 100 epochs, export to work/model; the same command resumes after a stop
  ctdeface train work --volumes ct --phantoms 400
      real volumes (*.nii.gz) as well, labeled by the geometric segmenter
  ctdeface train work --stop-after 1
      make the data set and train one epoch
  ctdeface train further --begin-with work/model/fold_0/weights.safetensors --learning-rate 0.005
      train a network further
  nohup nice ctdeface train work > train.log &
      in the background
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the network is trained and written",
    EXIT_REFUSED: "reading, training or writing failed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for data, length and device."""
    parser.add_argument(
        "root",
        type=Path,
        help="folder for data set, checkpoints and model; an interrupted training resumes there",
    )
    parser.add_argument(
        "--volumes",
        type=Path,
        metavar="FOLDER",
        help="folder of NIfTI volumes in HU (*.nii.gz) to train on as well",
    )
    parser.add_argument(
        "--phantoms",
        type=int,
        default=300,
        metavar="N",
        help="number of synthetic heads to train on (default: 300)",
    )
    parser.add_argument(
        "--variants",
        type=int,
        default=2,
        metavar="N",
        help="number of augmented copies of each real volume (default: 2)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=100,
        help="number of epochs; the learning rate falls to 0 with the last (default: 100)",
    )
    parser.add_argument(
        "--iterations", type=int, default=50, help="number of batches per epoch (default: 50)"
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="FILE",
        help="initial weights, of an earlier training; a narrower network is widened",
    )
    parser.add_argument(
        "--learning-rate",
        type=rate,
        default=0.01,
        metavar="RATE",
        help="learning rate of the first epoch (default: 0.01)",
    )
    parser.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="stop this run after N epochs, and export the model so far",
    )
    parser.add_argument(
        "--seed", type=seed, default=1, help="seed of data and weights (default: 1)"
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="use a coarse network, patches and phantoms: a trial takes minutes",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="device to train on (default: cpu)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="folder for the exported model (default: ROOT/model)",
    )


def run(namespace: argparse.Namespace) -> int:
    """Make the data set, train, and export the model."""
    from ctdeface_worker.training import dataset, export, plan, train

    folders = dataset.Folders(root=namespace.root.resolve())
    train.check_device(namespace.device)
    recipe = train.Recipe(
        epochs=namespace.epochs,
        iterations=namespace.iterations,
        seed=namespace.seed,
        size=plan.SMALL if namespace.small else plan.USUAL,
        device=namespace.device,
        learning_rate=namespace.learning_rate,
        began_with=_sha256(namespace.begin_with) if namespace.begin_with else "",
        precision=train.precision_on(namespace.device),
    )
    if namespace.volumes is not None and not namespace.volumes.is_dir():
        raise ConfigurationError(
            f"{namespace.volumes} is not a folder: --volumes needs a folder of NIfTI volumes"
        )
    train.prepare_environment(folders)
    weights = train.weights_for(namespace.begin_with, recipe) if namespace.begin_with else None
    train.begin(folders, recipe)
    console = Console(highlight=False)
    for entry in dataset.write_raw(_examples(namespace, folders), folders):
        console.print(f"{entry.name}: {entry.face_voxels} face voxels")
    dataset.describe(folders)
    train.preprocess(folders, recipe)
    train.train(folders, recipe, begin_with=weights, stop_after=namespace.stop_after)
    console.print(f"model: {export.export(folders, namespace.out or folders.root / 'model')}")
    return 0


def seed(text: str) -> int:
    """Parse the seed of a training.

    Raises:
        argparse.ArgumentTypeError: the seed is below 1; training would use the phantoms that
            `ctdeface evaluate` uses.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a seed: use an integer of at least 1")
    return value


def rate(text: str) -> float:
    """Parse a learning rate.

    Raises:
        argparse.ArgumentTypeError: it is not between 0 and 1.
    """
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text} is not a learning rate: use a number above 0 and below 1"
        )
    return value


def _sha256(weights: Path) -> str:
    try:
        return sha256_of(weights)
    except OSError as error:
        raise ConfigurationError(f"cannot read the weights {weights}: {error.strerror}") from None


def _examples(namespace: argparse.Namespace, folders: "Folders") -> "Iterator[Example]":
    from ctdeface_worker.training import dataset, examples

    known = {entry.name for entry in dataset.entries(folders)}
    first = namespace.seed * SEEDS_APART
    seeds = range(first, first + namespace.phantoms)
    synthetic = examples.phantoms(seeds, known, clinical=not namespace.small)
    if namespace.volumes is None:
        return synthetic
    return chain(
        examples.volumes(namespace.volumes, namespace.variants, namespace.seed, known), synthetic
    )
