"""Train the network that finds faces: make its data set, train in sittings, export it."""

import argparse
import hashlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.exit_codes import COMMON_EXIT_CODES, EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from ctdeface_worker.training.dataset import Folders
    from ctdeface_worker.training.examples import Example

SEEDS_APART = 100_000
"""Phantoms of one training seed are not those of the next."""

EXAMPLES = """\
examples:
  ctdeface train work                                 300 phantoms, 100 epochs, export to work/model; the same command goes on after a stop
  ctdeface train work --volumes ct --phantoms 400     real volumes (*.nii.gz) as well, labeled by the geometric segmenter
  ctdeface train work --stop-after 1                  make the data set and train one epoch
  ctdeface train further --begin-with work/model/fold_0/weights.safetensors --learning-rate 0.005     train a network further
  nohup nice ctdeface train work > train.log &        in the background
"""
EXIT_CODES = {
    **COMMON_EXIT_CODES,
    EXIT_OK: "the network is trained and written",
    EXIT_REFUSED: "reading, training or writing failed",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare data, length and device."""
    parser.add_argument(
        "root",
        type=Path,
        help="folder for data set, checkpoints and model; an interrupted training goes on there",
    )
    parser.add_argument(
        "--volumes",
        type=Path,
        metavar="FOLDER",
        help="NIfTI volumes in HU (*.nii.gz) to learn from as well",
    )
    parser.add_argument(
        "--phantoms",
        type=int,
        default=300,
        metavar="N",
        help="synthetic heads to learn from (default: 300)",
    )
    parser.add_argument(
        "--variants",
        type=int,
        default=2,
        metavar="N",
        help="disturbed copies of each real volume (default: 2)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=100,
        help="over which the learning rate falls to 0 (default: 100)",
    )
    parser.add_argument(
        "--iterations", type=int, default=50, help="batches per epoch (default: 50)"
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="FILE",
        help="weights of an earlier training (a narrower network is widened)",
    )
    parser.add_argument(
        "--learning-rate",
        type=rate,
        default=0.01,
        metavar="RATE",
        help="of the first epoch (default: 0.01)",
    )
    parser.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="end this sitting after N epochs, and export what there is",
    )
    parser.add_argument("--seed", type=seed, default=1, help="of data and weights (default: 1)")
    parser.add_argument(
        "--small",
        action="store_true",
        help="network, patches and phantoms so coarse that a trial takes minutes",
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="where to train (default: cpu)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to export the model (default: ROOT/model)"
    )


def run(namespace: argparse.Namespace) -> int:
    """Make the data set, train and export."""
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
        raise ConfigurationError(f"there is no folder of volumes at {namespace.volumes}")
    train.prepare_environment(folders)
    weights = train.weights_for(namespace.begin_with, recipe) if namespace.begin_with else None
    train.begin(folders, recipe)
    console = Console(highlight=False)
    for entry in dataset.write_raw(_examples(namespace, folders), folders):
        console.print(f"{entry.name}: {entry.face_voxels} voxels of face")
    dataset.describe(folders)
    train.preprocess(folders, recipe)
    train.train(folders, recipe, begin_with=weights, stop_after=namespace.stop_after)
    console.print(f"model: {export.export(folders, namespace.out or folders.root / 'model')}")
    return 0


def seed(text: str) -> int:
    """Read the seed of a training.

    Raises:
        argparse.ArgumentTypeError: it would learn from the very phantoms that `ctdeface evaluate`
            measures with.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no seed: give a whole number from 1 on")
    return value


def rate(text: str) -> float:
    """Read a learning rate.

    Raises:
        argparse.ArgumentTypeError: no training would learn with it.
    """
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text} is no learning rate: give a number above 0 and below 1"
        )
    return value


def _sha256(weights: Path) -> str:
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{weights} cannot be read: {error.strerror}") from None


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
