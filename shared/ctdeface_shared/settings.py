"""The settings: environment over TOML file over defaults, checked as a whole before anything starts.

`CTDEFACE_DEFACE__PROFILE=bulky` in the environment is `profile = "bulky"` in the file's table `[deface]`.
The file is the one given by `--config`, else by `CTDEFACE_CONFIG`, else `./ctdeface.toml` if there is one.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ctdeface_shared.audit.section import AuditSection
from ctdeface_shared.broker.section import BrokerSection
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.metrics.section import MetricsSection
from ctdeface_shared.models_section import ModelsSection
from ctdeface_shared.options import USUAL_SEGMENTER, DefaceOptions, FillRule, HeaderPolicy, OnSeriesFailure, Originals, Profile
from ctdeface_shared.section import Section
from ctdeface_shared.tracing.section import TracesSection

PREFIX = "CTDEFACE_"
DELIMITER = "__"
NOT_SETTINGS = frozenset({"CTDEFACE_CONFIG", "CTDEFACE_REAL_DATA"})
"""Names in the environment that are ours but no settings: which file to read, and where the tests find real CT."""
FOR_TESTS = "CTDEFACE_TEST_"
"""How the names begin that only the test suite reads."""
DEFAULT_FILE = Path("ctdeface.toml")


class DefaceSection(Section):
    """What is done to each case, unless a job says otherwise."""

    profile: Profile = Field(
        Profile.SOFT_TISSUE, description="What the face mask covers: soft-tissue, or bulky (orbits and facial bone too)."
    )
    ears: bool = Field(default=False, description="Remove the ears as well.")
    fill: str = Field("air", description="Fill value: air (the case's own), p10 (as CTA-DEFACE does) or a whole number of HU up to -800.")
    headers: HeaderPolicy = Field(HeaderPolicy.PRESERVE, description="preserve keeps every header byte; annotate makes derived instances.")
    on_series_failure: OnSeriesFailure = Field(
        OnSeriesFailure.QUARANTINE, description="If a series fails: quarantine the case, or withhold it."
    )
    segmenter: str = Field(USUAL_SEGMENTER, description="What finds the face.")

    @field_validator("fill", mode="before")
    @classmethod
    def _readable(cls, given: object) -> str:
        return str(FillRule.parse(str(given)))

    def options(self) -> DefaceOptions:
        """Return the same choices as the value that flows with a job."""
        return DefaceOptions(**{**self.model_dump(), "fill": FillRule.parse(self.fill)})


class OutputSection(Section):
    """How released cases lie on the disk."""

    outbox_mode: str = Field("0750", pattern="^0[0-7]{3}$", description="Octal mode of released folders; files: the same, not executable.")
    outbox_group: str | None = Field(None, description="Group that owns released cases; none keeps the process's own.")
    min_free_gb: float = Field(5.0, ge=0, description="Below this free space in GB no new case is begun.")

    @property
    def folder_mode(self) -> int:
        """Mode of released folders."""
        return int(self.outbox_mode, 8)

    @property
    def file_mode(self) -> int:
        """Mode of released files: the folder's without execute bits."""
        return self.folder_mode & 0o666


class WorkSection(Section):
    """How much of the machine is used."""

    jobs: int = Field(1, ge=1, description="Cases worked on at the same time.")
    threads: int | None = Field(None, ge=1, description="Threads per case; none shares the machine's cores among the jobs.")
    job_timeout: float = Field(3600.0, gt=0, description="Seconds after which a case counts as hanging and its process is ended.")
    grace_period: float = Field(60.0, ge=0, description="Seconds a stopping worker has to finish its case before it hands it back.")
    max_attempts: int = Field(4, ge=1, description="Attempts at a case before it is quarantined.")
    memory_limit_gb: float | None = Field(None, gt=0, description="A case whose process holds more than this is ended; none sets no limit.")


class SpoolSection(Section):
    """Where the service keeps cases, and for how long."""

    root: Path = Field(Path("spool"), description="Folder of inbox, outbox, quarantine, reports and the rest; shared between machines.")
    inbox: Path | None = Field(None, description="Where cases are dropped; none is the folder inbox in the root.")
    state_dir: Path | None = Field(None, description="Ledger and embedded queue, on a local disk; none is the folder state in the root.")
    originals: Originals = Field(
        Originals.ARCHIVE, description="Dropped files of a released case: archive, delete, or keep them in the inbox."
    )
    archive_days: float | None = Field(None, gt=0, description="Archived originals and earlier outputs are removed after so many days.")
    quarantine_days: float | None = Field(None, gt=0, description="Quarantined cases are removed after so many days; none keeps them.")
    reports_days: float | None = Field(None, gt=0, description="Reports of ended jobs are removed after so many days; none keeps them.")


class WatchMode(StrEnum):
    """What makes the watcher look."""

    INOTIFY = "inotify"
    POLLING = "polling"


class WatchSection(Section):
    """When a dropped case is complete, and how many may be on their way."""

    mode: WatchMode = Field(WatchMode.INOTIFY, description="inotify: events make it look sooner; polling: for network shares.")
    quiet_period: float = Field(10.0, gt=0, description="Seconds without a change after which a case is complete.")
    rescan_interval: float = Field(30.0, gt=0, description="Seconds between two looks at the inbox when nothing happens.")
    max_wait: float = Field(86400.0, gt=0, description="Seconds after which a case that never settles is reported and left alone.")
    marker: str | None = Field(None, description="Name of a file that says a case is complete; none waits for the quiet period only.")
    marker_only: bool = Field(default=False, description="Whether only the marker makes a case complete.")
    ignore: tuple[str, ...] = Field(
        ("Thumbs.db", "desktop.ini", ".DS_Store"), description="Patterns of names that do not keep a case waiting."
    )
    case_depth: int = Field(1, ge=1, description="Cases are the folders so many levels below the inbox.")
    max_unfinished: int = Field(1000, ge=1, description="No more jobs are published while so many have not ended.")
    zip_files: int = Field(50_000, ge=1, description="A dropped zip file with more files is refused.")
    zip_gb: float = Field(50.0, gt=0, description="A dropped zip file that unpacks to more GB is refused.")
    zip_ratio: float = Field(100.0, gt=1, description="A dropped zip file that unpacks to more than so many times its size is refused.")


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter=DELIMITER, case_sensitive=False, hide_input_in_errors=True
    )

    deface: DefaceSection = DefaceSection()
    output: OutputSection = OutputSection()
    work: WorkSection = WorkSection()
    spool: SpoolSection = SpoolSection()
    watch: WatchSection = WatchSection()
    broker: BrokerSection = BrokerSection()
    metrics: MetricsSection = MetricsSection()
    traces: TracesSection = TracesSection()
    models: ModelsSection = ModelsSection()
    audit: AuditSection = AuditSection()
    uid_key: SecretStr | None = Field(
        None, min_length=16, description="Secret behind the new UIDs of headers = annotate, 16 characters up."
    )

    @model_validator(mode="after")
    def _key_for_new_uids(self) -> Self:
        _require_key(self.deface.headers, self.uid_key)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the file, whose content arrives as arguments; read nothing else."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def with_choices(self, **chosen: str | bool | None) -> "Settings":
        """Return settings with what the command line chose over `deface`; None means not chosen.

        Raises:
            ConfigurationError: the choices do not fit the other settings.
        """
        asked = {key: value for key, value in chosen.items() if value is not None}
        try:
            deface = DefaceSection.model_validate(self.deface.model_dump() | asked)
            _require_key(deface.headers, self.uid_key)
        except ValueError as error:
            raise ConfigurationError(_sentence(error)) from None
        return self.model_copy(update={"deface": deface})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings and where they came from.

    Attributes:
        settings: what is in effect.
        origins: for each key like `deface.profile`, the name in the environment, the file or "default".
    """

    settings: Settings
    origins: Mapping[str, str]


def load(config: Path | None = None) -> Loaded:
    """Read the settings from environment and file.

    Args:
        config: the file to read; None looks for `CTDEFACE_CONFIG` and then for `./ctdeface.toml`.

    Raises:
        ConfigurationError: a file that is missing or no TOML, an unknown key, or a value that is not allowed.
    """
    file = _file(config)
    document = _document(file) if file else {}
    names = {key: variable_of(key) for key in keys()}
    _refuse_unknown_variables(frozenset(names.values()))
    try:
        settings = Settings(**document)
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
    present = {name.upper() for name in os.environ}
    in_file = set(_leaves(document))
    origins = {key: name if name in present else str(file) if key in in_file else "default" for key, name in names.items()}
    return Loaded(settings=settings, origins=origins)


def keys() -> tuple[str, ...]:
    """Every key that can be set, such as `deface.profile`."""
    return tuple(_leaves({name: _fields(field.annotation) for name, field in Settings.model_fields.items()}))


def variable_of(key: str) -> str:
    """Return the name in the environment of a key: `deface.profile` is CTDEFACE_DEFACE__PROFILE."""
    return PREFIX + key.replace(".", DELIMITER).upper()


def _require_key(headers: HeaderPolicy, key: SecretStr | None) -> None:
    if headers is HeaderPolicy.ANNOTATE and key is None:
        message = "headers = annotate makes new UIDs and needs a secret of your own: set uid_key, best as CTDEFACE_UID_KEY"
        raise ValueError(message)


def _fields(annotation: object) -> dict[str, None] | None:
    return dict.fromkeys(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name


def _file(config: Path | None) -> Path | None:
    named = config or Path(os.environ.get("CTDEFACE_CONFIG") or DEFAULT_FILE)
    if named.is_file():
        return named
    if named == DEFAULT_FILE and config is None:
        return None
    message = f"there is no settings file {named}"
    raise ConfigurationError(message)


def _document(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{file} is not TOML: {error}"
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}"
    raise ConfigurationError(message)


def _refuse_unknown_variables(known: frozenset[str]) -> None:
    for name in sorted(os.environ):
        upper = name.upper()
        if upper.startswith(PREFIX) and upper not in known | NOT_SETTINGS and not upper.startswith(FOR_TESTS):
            near = get_close_matches(upper, known, n=1)
            message = f"{name} in the environment is no setting" + (f"; did you mean {near[0]}?" if near else "")
            raise ConfigurationError(message)


def _sentence(error: ValueError) -> str:
    """Say what is wrong, key by key, without repeating values: they may be secrets."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(_complaint(".".join(map(str, item["loc"])), item["type"], item["msg"]) for item in error.errors())


def _complaint(key: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        near = get_close_matches(key, keys(), n=1)
        return f"{key} is no setting" + (f"; did you mean {near[0]}?" if near else "")
    said = message.removeprefix("Value error, ")
    return f"{key}: {said}" if key else said
