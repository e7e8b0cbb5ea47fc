"""Measure seconds and peak memory of the segmentation with networks on a CPU.

Weights are by chance or by hand, so masks mean nothing here; only time, memory and agreement with
nnU-Net's official way are measured. Each measurement runs in a process of its own:

    .venv/bin/python -m tests.benchmarks.networks tiny small
        on visible_human_female of CTDEFACE_REAL_DATA
    .venv/bin/python -m tests.benchmarks.networks long
        1 000 slices of 512 x 512 from a phantom
    .venv/bin/python -m tests.benchmarks.networks big
        128-voxel tiles: installation, one tile, agreement
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from ctdeface_shared.errors import CtDefaceError
from ctdeface_worker.imaging.domain import Geometry, Volume
from ctdeface_worker.segmentation.models.files import model_files
from ctdeface_worker.segmentation.models.install import InstallRequest, install
from ctdeface_worker.segmentation.models.store import Model
from ctdeface_worker.training.plan import Size
from tests.support.networks import TINY, network_of, tiny_plans, write_checkpoint, write_plans

SIZES = {"tiny": TINY, "small": Size(), "long": Size()}
BIG = Size(grid_mm=1.0, patch=(128, 128, 128), features=(32, 64, 128, 256, 320, 320))
"""CTA-DEFACE's: PlainConvUNet of 6 stages."""
SLICES = 1000


def main() -> int:
    """Measure what was asked for, each in a process of its own."""
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        _measure(sys.argv[2])
        return 0
    for name in sys.argv[1:] or ["tiny", "small", "long", "big"]:
        subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.networks", "--one", name], check=True
        )
    return 0


def _measure(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if name == "big":
            _big(Path(folder))
        else:
            _segment(name, _long() if name == "long" else _real(), Path(folder))


def _segment(name: str, volume: Volume, folder: Path) -> None:
    """Time geometry alone, a network alone and guided, each cold and warm."""
    from ctdeface_worker.segmentation.geometric.segmenter import GeometricSegmenter
    from ctdeface_worker.segmentation.nnunet.segmenter import GuidedSegmenter, NnunetSegmenter

    megabytes = _weights_mb(made := write_plans(folder / "m", tiny_plans(SIZES[name])), SIZES[name])
    print(
        f"{name}: volume {volume.hu.shape}, {volume.hu.nbytes / 1e6:.0f} MB;"
        f" weights {megabytes:.1f} MB; threads {_threads()}"
    )
    print(f"  before segmenting: peak {_peak_mb():.0f} MB")
    begun, used = perf_counter(), process_time()
    GeometricSegmenter().segment(volume)
    print(
        f"  geometric: {perf_counter() - begun:.1f} s ({process_time() - used:.1f} s of CPU),"
        f" peak {_peak_mb():.0f} MB"
    )
    model = Model(name="m", folder=made, sha256=model_files(made).digest(), origin="unverified")
    alone, guided = NnunetSegmenter("nnunet:m", model), GuidedSegmenter("network", model)
    for what, segmenter in (
        ("alone, with loading", alone),
        ("alone, warm", alone),
        ("guided", guided),
        ("guided, warm", guided),
    ):
        begun, used = perf_counter(), process_time()
        try:
            segmenter.segment(volume)
            outcome = "a mask"
        except CtDefaceError as error:
            outcome = error.code
        print(
            f"  network {what}: {perf_counter() - begun:.1f} s"
            f" ({process_time() - used:.1f} s of CPU), peak {_peak_mb():.0f} MB, {outcome}"
        )


def _weights_mb(folder: Path, size: Size) -> float:
    file = write_checkpoint(folder, network_of(tiny_plans(size)))
    return file.stat().st_size / 1e6


def _big(folder: Path) -> None:
    """Install a model like CTA-DEFACE's, and compare its mask with stock nnU-Net's."""
    import torch

    from ctdeface_worker.segmentation.nnunet.network import load_network, quiet
    from ctdeface_worker.segmentation.nnunet.prediction import stored_mask

    with quiet():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    given = write_plans(folder / "given", tiny_plans(BIG, ours=False))
    write_checkpoint(given, network_of(tiny_plans(BIG)), "fold_all/checkpoint_final.pth")
    begun = perf_counter()
    model = install(InstallRequest(name="cta-deface", source=str(given)), folder / "store")
    print(
        f"big: {model.files().size / 1e6:.0f} MB of weights,"
        f" installed in {perf_counter() - begun:.1f} s; threads {_threads()}"
    )
    volume = _blobs((90, 120, 120))
    network = load_network(model.verified_files())
    begun = perf_counter()
    found = stored_mask(network, volume, (np.full(3, -1e4), np.full(3, 1e4)))
    print(
        f"  one tile of 128 x 128 x 128 with ctdeface: {perf_counter() - begun:.1f} s,"
        f" peak {_peak_mb():.0f} MB"
    )
    del network
    with quiet():
        official = nnUNetPredictor(
            use_mirroring=False,
            device=torch.device("cpu"),
            perform_everything_on_device=False,
            allow_tqdm=False,
        )
        official.initialize_from_trained_model_folder(str(given), use_folds=("all",))
        begun = perf_counter()
        labels = official.predict_single_npy_array(
            volume.hu[None], {"spacing": list(volume.geometry.spacing_mm)}
        )
    print(
        f"  with stock nnU-Net: {perf_counter() - begun:.1f} s; face {found.mean():.1%} of voxels;"
        f" equal {np.mean(found == (labels == 1)):.6%}"
    )


def _blobs(shape: tuple[int, int, int]) -> Volume:
    from scipy import ndimage

    hu = (
        ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 4) * 30_000 - 300
    ).astype(np.float32)
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = affine[3, 3] = 1.0
    return Volume(
        hu=hu, valid=np.ones(shape, dtype=bool), geometry=Geometry.from_affine(shape, affine)
    )


def _real() -> Volume:
    from tests.support.measure.volumes import load

    return load(Path(os.environ["CTDEFACE_REAL_DATA"]), "visible_human_female")


def _long() -> Volume:
    """Return a phantom's head on a trunk: 1 000 slices of 512 x 512, 0.9 mm voxels."""
    from scipy import ndimage

    from ctdeface_worker.phantom.head import make_head

    spacing = (1.8, 1.8, 1.8)
    head = make_head(1, spacing_mm=spacing).volume
    fine = ndimage.zoom(head.hu, 2, order=1)[:, :512, :512]
    hu: np.ndarray = np.full((SLICES, 512, 512), -1000.0, dtype=np.float32)
    rows, columns = ((512 - length) // 2 for length in fine.shape[1:])
    hu[-fine.shape[0] :, rows : rows + fine.shape[1], columns : columns + fine.shape[2]] = fine
    hu[: -fine.shape[0], 150:380, 80:430] = 40.0
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = 0.9
    affine[3, 3] = 1.0
    return Volume(
        hu=hu,
        valid=np.ones(hu.shape, dtype=bool),
        geometry=Geometry.from_affine((SLICES, 512, 512), affine),
    )


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def _threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "all")


if __name__ == "__main__":
    sys.exit(main())
