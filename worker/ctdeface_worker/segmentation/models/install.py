"""Install a network into the store of this installation.

Only the used files are installed, completely or not at all, with their digest.
"""

import re
import shutil
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.storage.checksum import sha256_of
from ctdeface_worker.segmentation.models.download import (
    KNOWN,
    download,
    download_folder_of,
    is_link,
)
from ctdeface_worker.segmentation.models.files import (
    DATASET,
    FOLD_WEIGHTS,
    OUR_WEIGHTS,
    PLANS,
    model_files,
    model_folder_below,
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
"""Largest unpacked size of a model."""
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """A model to be installed.

    Attributes:
        name: its name in this installation.
        source: folder, zip file or link; None for a model with a known link.
        sha256: required digest of the zip file, or of the model's files as shown by `ctdeface
            model list`.
    """

    name: str
    source: str | None = None
    sha256: str | None = None


def install(request: InstallRequest, store: Path) -> Model:
    """Install a network, replacing one of the same name.

    Args:
        request: the model.
        store: folder of installed networks.

    Raises:
        ConfigurationError: it cannot be found, cannot run here, or has another digest.
    """
    source = request.source or KNOWN.get(request.name)
    if not NAME.fullmatch(request.name) or request.name == SHIPPED:
        raise ConfigurationError(
            f"{request.name!r} is not a valid name of a model; use small letters, digits, dots and "
            f"dashes, but not {SHIPPED!r}"
        )
    if source is None:
        raise ConfigurationError(
            f"the source of {request.name} is not known; name it by --from FOLDER, ZIP or LINK "
            f"(models with a known link: {', '.join(KNOWN)})"
        )
    try:
        store.mkdir(parents=True, exist_ok=True)
        path = download(source, store) if is_link(source) else Path(source)
        try:
            with tempfile.TemporaryDirectory(prefix=".install-", dir=store) as folder:
                made = _collect(path, Path(folder) / request.name)
                record = _make_record(made, request, path, source)
                _check_that_it_loads(made)
                write_record(record)
                _replace(made, store / request.name)
        finally:
            if is_link(source):  # a complete but unusable download must not be resumed
                shutil.rmtree(download_folder_of(source, store), ignore_errors=True)
    except OSError as error:
        raise ConfigurationError(
            f"the model cannot be installed in {store}: {error.strerror or error}"
        ) from error
    return find(request.name, store)


def _collect(path: Path, made: Path) -> Path:
    """Copy the used files to a new folder."""
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
        raise ConfigurationError(
            f"{path} is neither a folder nor a zip file; name the folder or the zip file of a model"
        )
    return made


def _unpack(archive: Path, made: Path) -> None:
    """Unpack the only model in a zip file.

    Only known names are unpacked, so no file leaves the folder.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            remaining = LARGEST_BYTES
            for member, target in _members(packed, archive).items():
                place = made / target
                place.parent.mkdir(exist_ok=True)
                with packed.open(member) as stream, place.open("xb") as out:
                    while block := stream.read(_BLOCK):
                        remaining -= len(block)
                        if remaining < 0:
                            raise ConfigurationError(
                                f"{archive} unpacks to more than {LARGEST_BYTES >> 30} GiB, which "
                                "is the limit for a model. Check the file"
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
            f"{archive} is damaged, encrypted or compressed by an unknown method "
            f"({type(error).__name__}). Unpack it and name its folder"
        ) from error


def _members(packed: zipfile.ZipFile, archive: Path) -> dict[str, PurePosixPath]:
    """Return the model's members and their paths in its folder.

    Raises:
        ConfigurationError: there is not exactly one model.
    """
    names = [PurePosixPath(name) for name in packed.namelist()]
    roots = [name.parent for name in names if name.name == PLANS and name.parent / DATASET in names]
    if len(roots) != 1:
        raise ConfigurationError(
            f"{archive} holds {len(roots)} nnU-Net v2 models; exactly one is required. "
            "Unpack it and name the folder of one of them"
        )
    found = {}
    for name in names:
        inner = name.relative_to(roots[0]) if name.is_relative_to(roots[0]) else PurePosixPath()
        is_expected = len(inner.parts) == 1 or (
            len(inner.parts) == 2 and FOLD.fullmatch(inner.parts[0])
        )
        if is_expected and inner.name in WANTED:
            found[name.as_posix()] = inner
    return found


def _check_that_it_loads(made: Path) -> None:
    from ctdeface_worker.segmentation.nnunet.network import load_network

    load_network(model_files(made))


def _make_record(made: Path, request: InstallRequest, path: Path, source: str) -> Model:
    """Compute the digest and compare it with the given one.

    Raises:
        ConfigurationError: they differ.
    """
    digest = model_files(made).digest()
    digests = {digest} | ({sha256_of(path)} if path.is_file() else set())
    if request.sha256 is not None and request.sha256.lower() not in digests:
        raise ConfigurationError(
            f"the model has another digest ({' or '.join(sorted(digests))}); {request.sha256} is "
            "required. It is not installed: get the model again, or correct --sha256"
        )
    return Model(
        name=request.name,
        folder=made,
        sha256=digest,
        origin=VERIFIED if request.sha256 else UNVERIFIED,
        source=source if is_link(source) else path.name,
    )


def _replace(made: Path, place: Path) -> None:
    """Replace an installed folder by the new one."""
    _drop_unused(made)
    old = made.with_name(".old")
    with suppress(FileNotFoundError):
        place.rename(old)
    made.rename(place)


def _drop_unused(made: Path) -> None:
    """Remove weights that are superseded by a preferred form.

    The installed folder then holds the used files only.
    """
    used = set(model_files(made).used)
    for file in made.rglob("*"):
        if file.name in WANTED and file not in used:
            file.unlink()
