"""The settings: environment over TOML file over defaults, checked as a whole before anything starts.

`CTDEFACE_DEFACE__PROFILE=bulky` in the environment is `profile = "bulky"` in the file's table
`[deface]`. The file is the one given by `--config`, else by `CTDEFACE_CONFIG`, else
`./ctdeface.toml` if there is one.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_shared.settings.sections import (
    AuditSection,
    BrokerSection,
    DefaceSection,
    MetricsSection,
    ModelsSection,
    OutputSection,
    Section,
    SpoolSection,
    TracesSection,
    WatchSection,
    WorkSection,
)

PREFIX = "CTDEFACE_"
DELIMITER = "__"
NOT_SETTINGS = frozenset({"CTDEFACE_CONFIG", "CTDEFACE_REAL_DATA"})
"""Names in the environment that are ours but no settings: which file to read, and where the tests find real CT."""
FOR_TESTS = "CTDEFACE_TEST_"
"""How the names begin that only the test suite reads."""
DEFAULT_FILE = Path("ctdeface.toml")


class Settings(BaseSettings):
    """Everything an operator can set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        case_sensitive=False,
        hide_input_in_errors=True,
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
        None,
        min_length=16,
        description="Secret behind the new UIDs of headers = annotate, 16 characters up.",
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
        origins: for each key like `deface.profile`, the name in the environment, the file or
            "default".
    """

    settings: Settings
    origins: Mapping[str, str]


def load(config: Path | None = None) -> Loaded:
    """Read the settings from environment and file.

    Args:
        config: the file to read; None looks for `CTDEFACE_CONFIG` and then for `./ctdeface.toml`.

    Raises:
        ConfigurationError: a file that is missing or no TOML, an unknown key, or a value that is
            not allowed.
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
    origins = {
        key: name if name in present else str(file) if key in in_file else "default"
        for key, name in names.items()
    }
    return Loaded(settings=settings, origins=origins)


def keys() -> tuple[str, ...]:
    """Every key that can be set, such as `deface.profile`."""
    return tuple(
        _leaves({name: _fields(field.annotation) for name, field in Settings.model_fields.items()})
    )


def variable_of(key: str) -> str:
    """Return the name in the environment of a key: `deface.profile` is CTDEFACE_DEFACE__PROFILE."""
    return PREFIX + key.replace(".", DELIMITER).upper()


def _require_key(headers: HeaderPolicy, key: SecretStr | None) -> None:
    if headers is HeaderPolicy.ANNOTATE and key is None:
        raise ValueError(
            "headers = annotate makes new UIDs and needs a secret of your own: set uid_key, best as CTDEFACE_UID_KEY"
        )


def _fields(annotation: object) -> dict[str, None] | None:
    return (
        dict.fromkeys(annotation.model_fields)
        if isinstance(annotation, type) and issubclass(annotation, Section)
        else None
    )


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
    raise ConfigurationError(f"there is no settings file {named}")


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
        if (
            upper.startswith(PREFIX)
            and upper not in known | NOT_SETTINGS
            and not upper.startswith(FOR_TESTS)
        ):
            near = get_close_matches(upper, known, n=1)
            raise ConfigurationError(
                f"{name} in the environment is no setting"
                + (f"; did you mean {near[0]}?" if near else "")
            )


def _sentence(error: ValueError) -> str:
    """Say what is wrong, key by key, without repeating values: they may be secrets."""
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(
        _complaint(".".join(map(str, item["loc"])), item["type"], item["msg"])
        for item in error.errors()
    )


def _complaint(key: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        near = get_close_matches(key, keys(), n=1)
        return f"{key} is no setting" + (f"; did you mean {near[0]}?" if near else "")
    said = message.removeprefix("Value error, ")
    return f"{key}: {said}" if key else said
