"""The networks of this installation, shipped and installed.

Each has a recorded digest, which is checked whenever the network is loaded.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ctdeface_shared.errors import ConfigurationError
from ctdeface_worker.segmentation.models.files import RECORD, ModelFiles, model_files

SHIPPED = "shipped"
SHIPPED_FOLDER = Path(__file__).parents[1] / "model"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
UNVERIFIED, VERIFIED = "unverified", "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network on this machine.

    Attributes:
        name: its name in this installation.
        folder: standard nnU-Net model folder.
        sha256: digest over its files, as recorded when it was installed or shipped.
        origin: "shipped" with this package, "verified" by a digest given at installation, or
            "unverified".
        source: link or file it was installed from.
    """

    name: str
    folder: Path
    sha256: str
    origin: str
    source: str = ""

    def files(self) -> ModelFiles:
        """Return the used files.

        Raises:
            ConfigurationError: some are missing.
        """
        return model_files(self.folder)

    def verified_files(self) -> ModelFiles:
        """Return the used files after checking the recorded digest.

        Raises:
            ConfigurationError: they are missing, or not the installed ones.
        """
        files = self.files()
        found = files.digest()
        if found != self.sha256:
            raise ConfigurationError(
                f"the files of the model {self.name} are not those that were installed: their "
                f"digest is {found}; {self.sha256} is required. Install the model again"
            )
        return files


def shipped(folder: Path = SHIPPED_FOLDER) -> Model | None:
    """Return the network shipped with the package, if any."""
    return _read(SHIPPED, folder) if (folder / RECORD).is_file() else None


def installed(store: Path) -> Iterator[Model]:
    """Yield the installed networks by name."""
    for record in sorted(store.glob(f"*/{RECORD}")):
        if NAME.fullmatch(record.parent.name):
            yield _read(record.parent.name, record.parent)


def find(name: str, store: Path) -> Model:
    """Return an installed network.

    Raises:
        ConfigurationError: no network of that name is installed.
    """
    if NAME.fullmatch(name) and (store / name / RECORD).is_file():
        return _read(name, store / name)
    known = ", ".join(model.name for model in installed(store)) or "none"
    raise ConfigurationError(
        f"the model {name!r} is not installed in {store} (installed: {known}); "
        "see `ctdeface model install --help`"
    )


def write_record(model: Model) -> None:
    """Write the record of a model into its folder."""
    record = {key: value for key, value in asdict(model).items() if key not in {"name", "folder"}}
    (model.folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _read(name: str, folder: Path) -> Model:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Model(
            name=name,
            folder=folder,
            sha256=str(record["sha256"]),
            origin=str(record["origin"]),
            source=str(record.get("source", "")),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the record of the model {name} in {folder} cannot be read ({type(error).__name__}); "
            "install the model again"
        ) from None
