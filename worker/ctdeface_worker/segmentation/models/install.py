"""Puts a network into the store of this installation: only the files that are used, whole or not at all, with their digest."""

import re
import shutil
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.download import KNOWN, download, is_link, parts
from ctdeface_worker.segmentation.models.files import (
    DATASET,
    FOLD_WEIGHTS,
    OUR_WEIGHTS,
    PLANS,
    model_files,
    model_folder_below,
    sha256_of,
)
from ctdeface_worker.segmentation.models.store import (
    NAME,
    SHIPPED,
    UNVERIFIED,
    VERIFIED,
    Model,
    find,
    write_record,
)

WANTED = {PLANS, DATASET, OUR_WEIGHTS, *FOLD_WEIGHTS}
FOLD = re.compile(r"fold_(\d+|all)")
LARGEST_BYTES = 8 << 30
"""A model that unpacks to more is none."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """What is to be installed.

    Attributes:
        name: what it shall be called here.
        source: folder, zip file or link; None for a model whose authors document a link.
        sha256: the digest it must have: of the zip file, or over the model's files as `ctdeface
            model list` shows it.
    """

    name: str
    source: str | None = None
    sha256: str | None = None


def install(order: InstallRequest, store: Path) -> Model:
    """Install a network; one of the same name is replaced.

    Args:
        order: what.
        store: folder of installed networks.

    Raises:
        ConfigurationError: it cannot be found, is no model that runs here, or has another digest.
    """
    source = order.source or KNOWN.get(order.name)
    if not NAME.fullmatch(order.name) or order.name == SHIPPED:
        raise ConfigurationError(
            f"{order.name!r} is no name for a model: take small letters, digits, dots and dashes, but not {SHIPPED!r}"
        )
    if source is None:
        raise ConfigurationError(
            f"where is {order.name}? Say --from FOLDER, ZIP or LINK (without it, known are: {', '.join(KNOWN)})"
        )
    try:
        store.mkdir(parents=True, exist_ok=True)
        path = download(source, store) if is_link(source) else Path(source)
        try:
            with tempfile.TemporaryDirectory(prefix=".install-", dir=store) as folder:
                made = _collect(path, Path(folder) / order.name)
                described = _described(made, order, path, source)
                _check_that_it_runs(made)
                write_record(described)
                _put(made, store / order.name)
        finally:
            if is_link(source):  # what came whole and is no good must come anew
                shutil.rmtree(parts(source, store), ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"the model cannot be installed in {store}: {error.strerror or error}"
        ) from error
    return find(order.name, store)


def _collect(path: Path, made: Path) -> Path:
    """Bring the files that are used from a folder or a zip file into a new folder."""
    made.mkdir()
    if path.is_dir():
        root = model_folder_below(path)
        for file in model_files(root).used:
            target = made / file.relative_to(root)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    elif zipfile.is_zipfile(path):
        _unpack(path, made)
    else:
        raise ConfigurationError(f"{path} is neither a folder nor a zip file")
    return made


def _unpack(archive: Path, made: Path) -> None:
    """Unpack the files of the one model in a zip file; their names are ours, so none leads out of the folder."""
    try:
        with zipfile.ZipFile(archive) as packed:
            left = LARGEST_BYTES
            for member, target in _members(packed, archive).items():
                place = made / target
                place.parent.mkdir(exist_ok=True)
                with packed.open(member) as stream, place.open("xb") as out:
                    while block := stream.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise ConfigurationError(
                                f"{archive} unpacks to more than {LARGEST_BYTES >> 30} GiB, which no model does"
                            )
                        out.write(block)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
        FileExistsError,
    ) as error:
        raise ConfigurationError(
            f"{archive} is damaged, encrypted or packed in a way that is not known here ({type(error).__name__})"
        ) from error


def _members(packed: zipfile.ZipFile, archive: Path) -> dict[str, PurePosixPath]:
    """Return which members make the model, each with its place in the model's folder.

    Raises:
        ConfigurationError: there is not exactly one model.
    """
    names = [PurePosixPath(name) for name in packed.namelist()]
    roots = [name.parent for name in names if name.name == PLANS and name.parent / DATASET in names]
    if len(roots) != 1:
        raise ConfigurationError(
            f"{archive} holds {len(roots)} nnU-Net v2 models; unpack it and name the folder of the one you want"
        )
    found = {}
    for name in names:
        inner = name.relative_to(roots[0]) if name.is_relative_to(roots[0]) else PurePosixPath()
        at_home = len(inner.parts) == 1 or (
            len(inner.parts) == 2 and FOLD.fullmatch(inner.parts[0])
        )
        if at_home and inner.name in WANTED:
            found[name.as_posix()] = inner
    return found


def _check_that_it_runs(made: Path) -> None:
    from ctdeface_worker.segmentation.nnunet.network import load_network

    load_network(model_files(made))


def _described(made: Path, order: InstallRequest, path: Path, source: str) -> Model:
    """Take the digest, and hold it against the one that was given.

    Raises:
        ConfigurationError: it is another.
    """
    digest = model_files(made).digest()
    digests = {digest} | ({sha256_of(path)} if path.is_file() else set())
    if order.sha256 is not None and order.sha256.lower() not in digests:
        raise ConfigurationError(
            f"the model has another digest than the given {order.sha256}: {' or '.join(sorted(digests))}. It is not installed"
        )
    return Model(
        name=order.name,
        folder=made,
        sha256=digest,
        origin=VERIFIED if order.sha256 else UNVERIFIED,
        source=source if is_link(source) else path.name,
    )


def _put(made: Path, place: Path) -> None:
    """Move the new folder into its place; one that is there moves out of the way and is removed."""
    _drop_unused(made)
    old = made.with_name(".old")
    with suppress(FileNotFoundError):
        place.rename(old)
    made.rename(place)


def _drop_unused(made: Path) -> None:
    """Remove weights that a better form of the same makes useless, so that what lies there is what is used."""
    used = set(model_files(made).used)
    for file in made.rglob("*"):
        if file.name in WANTED and file not in used:
            file.unlink()
