"""Loading of the settings: environment over TOML file over defaults.

They are validated as a whole before anything starts. `CTDEFACE_DEFACE__PROFILE=bulky` in the
environment is `profile = "bulky"` in the file's table `[deface]`. The file is the one given by
`--config`, else by `CTDEFACE_CONFIG`, else `./ctdeface.toml` if it exists.
"""

import json
import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, get_origin

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import HeaderPolicy
from ctdeface_shared.settings.sections import (
    AuditSection,
    BrokerSection,
    DefaceSection,
    LimitsSection,
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
"""Variables that are not settings: the file to read, and where tests find real CT."""
FOR_TESTS = "CTDEFACE_TEST_"
"""Prefix of variables that only the test suite reads."""
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
    limits: LimitsSection = LimitsSection()
    broker: BrokerSection = BrokerSection()
    metrics: MetricsSection = MetricsSection()
    traces: TracesSection = TracesSection()
    models: ModelsSection = ModelsSection()
    audit: AuditSection = AuditSection()
    uid_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Secret for the new UIDs of headers = annotate, at least 16 characters.",
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
        """Put the environment over the file, whose content arrives as arguments."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    def with_choices(self, **chosen: str | bool | None) -> "Settings":
        """Return settings with command-line options over the table `deface`.

        Args:
            chosen: values by name; None keeps the setting.

        Raises:
            ConfigurationError: the options are not valid, or do not fit the other settings.
        """
        given = {name: value for name, value in chosen.items() if value is not None}
        try:
            deface = DefaceSection.model_validate(self.deface.model_dump() | given)
        except ValidationError as error:
            origins = {f"deface.{name}": "the command line" for name in given}
            raise ConfigurationError(_explain(error, origins, above="deface")) from None
        try:
            _require_key(deface.headers, self.uid_key)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        return self.model_copy(update={"deface": deface})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings and their origins.

    Attributes:
        settings: the values in effect.
        origins: for each key like `deface.profile`, the variable in the environment, the file or
            "default".
    """

    settings: Settings
    origins: Mapping[str, str]


def load(config: Path | None = None) -> Loaded:
    """Read the settings from environment and file.

    Args:
        config: the file to read; None looks for `CTDEFACE_CONFIG` and then for `./ctdeface.toml`.

    Raises:
        ConfigurationError: the file is missing or not TOML, a key is unknown, or a value is not
            valid. The message names the setting and the file or variable.
    """
    file = _file(config)
    document = _document(file) if file else {}
    names = {key: variable_of(key) for key in keys()}
    _refuse_unknown_variables(frozenset(names.values()))
    present = {name.upper() for name in os.environ}
    in_file = dict.fromkeys(_leaves(document), str(file))
    in_environment = {key: name for key, name in names.items() if name in present}
    origins = in_file | in_environment
    try:
        settings = Settings(**document)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, origins)) from None
    except SettingsError:
        raise ConfigurationError(_explain_list(in_environment)) from None
    return Loaded(settings=settings, origins={key: origins.get(key, "default") for key in names})


def keys() -> tuple[str, ...]:
    """Return every key that can be set, such as `deface.profile`."""
    return tuple(
        _leaves({name: _fields(field.annotation) for name, field in Settings.model_fields.items()})
    )


def variable_of(key: str) -> str:
    """Return the variable of a key: `deface.profile` is CTDEFACE_DEFACE__PROFILE."""
    return PREFIX + key.replace(".", DELIMITER).upper()


def _require_key(headers: HeaderPolicy, key: SecretStr | None) -> None:
    if headers is HeaderPolicy.ANNOTATE and key is None:
        raise ValueError(
            "deface.headers is annotate, which creates new UIDs and requires a secret: "
            "set uid_key, best as CTDEFACE_UID_KEY"
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
    given_by = "--config" if config else "CTDEFACE_CONFIG"
    raise ConfigurationError(f"the settings file {named} does not exist: correct {given_by}")


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
            raise ConfigurationError(
                f"{name} in the environment is not a setting{_suggestion(upper, known)}"
            )


def _explain(error: ValidationError, origins: Mapping[str, str], above: str = "") -> str:
    """Return what is wrong, key by key.

    The message names where each value came from. Values are not repeated, because they may be
    secrets.

    Args:
        error: the error of a model.
        origins: file or variable of each key that was set.
        above: key of the model; empty for all settings.
    """
    return "; ".join(
        _complaint(
            ".".join(map(str, ([above] if above else []) + list(item["loc"]))),
            item["type"],
            item["msg"],
            origins,
        )
        for item in error.errors()
    )


def _complaint(key: str, kind: str, message: str, origins: Mapping[str, str]) -> str:
    if kind == "extra_forbidden":
        origin = _origin_of(key, origins)
        return f"{key}{origin} is not a setting{_suggestion(key, keys())}"
    text = message.removeprefix("Value error, ")
    if not key:  # a rule about several settings, which the message names
        return text
    return f"{key}{_origin_of(key, origins)}: {text}"


def _origin_of(key: str, origins: Mapping[str, str]) -> str:
    """Return " from FILE or VARIABLE" for a key or table."""
    found = {
        origin
        for name, origin in origins.items()
        if name == key or key.startswith(f"{name}.") or name.startswith(f"{key}.")
    }
    return f" from {' and '.join(sorted(found))}" if found else ""


def _suggestion(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _explain_list(in_environment: Mapping[str, str]) -> str:
    """Return which variable of a list is not JSON."""
    for key, name in in_environment.items():
        section, _, field = key.partition(".")
        table = Settings.model_fields[section].annotation
        if isinstance(table, type) and issubclass(table, Section):
            is_list = get_origin(table.model_fields[field].annotation) is tuple
            if is_list and not _is_json(_variable(name)):
                return (
                    f"{key} from {name} is not a JSON list: "
                    'write it with brackets and quotes, such as ["a", "b"]'
                )
    return "a variable in the environment is not valid JSON"


def _variable(name: str) -> str:
    return next(value for given, value in os.environ.items() if given.upper() == name)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
