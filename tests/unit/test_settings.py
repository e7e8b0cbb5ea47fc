"""The settings: where they come from, what is refused and what stays secret."""

import argparse
from pathlib import Path

import pytest

from ctdeface_shared.commands.config import run
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import FillKind, Profile
from ctdeface_shared.settings.loading import keys, load, variable_of
from ctdeface_shared.settings.sections import LimitsSection

KEY = "a-secret-of-24-letters-x"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run in an empty folder without any setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for key in keys():
        monkeypatch.delenv(variable_of(key), raising=False)
    monkeypatch.delenv("CTDEFACE_CONFIG", raising=False)


def _write(text: str, name: str = "ctdeface.toml") -> Path:
    file = Path(name)
    file.write_text(text, encoding="utf-8")
    return file


def test_without_file_and_environment_everything_is_default() -> None:
    """Nothing set means the documented defaults, and their origin says so."""
    loaded = load()
    assert loaded.settings.deface.options().profile is Profile.SOFT_TISSUE
    assert set(loaded.origins.values()) == {"default"}


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable overrides the same key in the file; other keys of the file stay."""
    _write('[deface]\nprofile = "bulky"\nears = true\n')
    monkeypatch.setenv("CTDEFACE_DEFACE__PROFILE", "soft-tissue")
    loaded = load()
    assert loaded.settings.deface.profile is Profile.SOFT_TISSUE
    assert loaded.settings.deface.ears
    assert loaded.origins["deface.profile"] == "CTDEFACE_DEFACE__PROFILE"
    assert loaded.origins["deface.ears"] == "ctdeface.toml"
    assert loaded.origins["deface.fill"] == "default"


def test_the_file_can_be_named_in_the_environment_or_as_an_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CTDEFACE_CONFIG names the file, and --config comes before it."""
    monkeypatch.setenv("CTDEFACE_CONFIG", str(_write("[work]\njobs = 2\n", "site.toml")))
    assert load().settings.work.jobs == 2
    assert load(_write("[work]\njobs = 3\n", "other.toml")).settings.work.jobs == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[deface]\nprofil = 'bulky'\n",
            "deface.profil from ctdeface.toml is not a setting; did you mean deface.profile?",
        ),
        ("colour = 1\n", "colour from ctdeface.toml is not a setting"),
        ("[deface]\nfill = 100\n", "could be taken for tissue"),
        ("[deface]\nfill = 'water'\n", "air, p10 or a whole number"),
        ("[work]\njobs = 0\n", "work.jobs from ctdeface.toml: Input should be greater than"),
        ("[output]\noutbox_mode = '0999'\n", "output.outbox_mode"),
        ("[deface\n", "is not TOML"),
        ("[deface]\nheaders = 'annotate'\n", "set uid_key"),
    ],
)
def test_what_makes_no_sense_in_the_file_is_refused_in_words(text: str, said: str) -> None:
    """A misspelt key, invalid value or broken file is a named configuration error."""
    _write(text)
    with pytest.raises(ConfigurationError, match=said.replace("?", r"\?")):
        load()


def test_a_misspelt_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown CTDEFACE_ name is not silently ignored."""
    monkeypatch.setenv("CTDEFACE_DEFACE__EAR", "true")
    with pytest.raises(ConfigurationError, match="did you mean CTDEFACE_DEFACE__EARS"):
        load()


def test_names_for_tests_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the suite reads neither sets anything nor is refused."""
    monkeypatch.setenv("CTDEFACE_TEST_SEED", "1")
    monkeypatch.setenv("CTDEFACE_REAL_DATA", "somewhere")
    assert set(load().origins.values()) == {"default"}


def test_a_file_that_is_named_but_missing_is_refused() -> None:
    """A named settings file has to exist."""
    with pytest.raises(ConfigurationError, match=r"missing\.toml does not exist: correct --config"):
        load(Path("missing.toml"))


def test_a_refused_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message about a key that is too short does not quote it."""
    monkeypatch.setenv("CTDEFACE_UID_KEY", "tooshort")
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert "uid_key" in str(caught.value)
    assert "tooshort" not in str(caught.value)


def test_config_shows_values_and_origins_but_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ctdeface config` lists every key with where it came from and masks the secret."""
    monkeypatch.setenv("CTDEFACE_UID_KEY", KEY)
    assert run(argparse.Namespace(config=None)) == 0
    shown = capsys.readouterr().out
    assert KEY not in shown
    assert "CTDEFACE_UID_KEY" in shown
    assert all(key in shown for key in keys())


def test_the_command_line_comes_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices replace settings, None means not chosen, and they are checked in the same way."""
    monkeypatch.setenv("CTDEFACE_DEFACE__PROFILE", "soft-tissue")
    settings = load().settings
    chosen = settings.with_choices(profile="bulky", fill="-900", ears=None)
    assert chosen.deface.options().profile is Profile.BULKY
    assert chosen.deface.options().fill.kind is FillKind.FIXED
    with pytest.raises(ConfigurationError, match="set uid_key"):
        settings.with_choices(headers="annotate")


def test_files_are_released_without_execute_bits() -> None:
    """The mode of files is the folders' mode with the execute bits taken off."""
    _write('[output]\noutbox_mode = "0750"\n')
    output = load().settings.output
    assert (output.folder_mode, output.file_mode) == (0o750, 0o640)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "CTDEFACE_WATCH__QUIET_PERIOD",
            "soon",
            "watch.quiet_period from CTDEFACE_WATCH__QUIET_PERIOD: Input should be a valid number",
        ),
        (
            "CTDEFACE_BROKER__RETRY_DELAYS",
            "[1, 0]",
            "broker.retry_delays.1 from CTDEFACE_BROKER__RETRY_DELAYS: Input should be greater",
        ),
        (
            "CTDEFACE_WATCH__IGNORE",
            "Thumbs.db",
            "watch.ignore from CTDEFACE_WATCH__IGNORE is not a JSON list: write it with brackets",
        ),
        (
            "CTDEFACE_METRICS__KEY_FILE",
            "key.pem",
            "metrics from CTDEFACE_METRICS__KEY_FILE: key_file and client_ca_file have no effect",
        ),
    ],
)
def test_a_wrong_value_in_the_environment_names_setting_and_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """An operator sees which variable to correct."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert str(caught.value).startswith(message)


def test_the_environment_is_named_where_it_overrides_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The value in effect is the wrong one, not that in the file."""
    _write("[work]\njobs = 2\n")
    monkeypatch.setenv("CTDEFACE_WORK__JOBS", "0")
    with pytest.raises(ConfigurationError, match=r"work\.jobs from CTDEFACE_WORK__JOBS: "):
        load()


def test_a_wrong_choice_names_the_command_line() -> None:
    """Options of a command are checked like settings."""
    with pytest.raises(ConfigurationError, match=r"deface\.fill from the command line: .*p10"):
        load().settings.with_choices(fill="water")


def test_the_limits_of_a_folder_are_in_bytes() -> None:
    """A setting in GB limits a folder in bytes, 10⁹ each."""
    limits = LimitsSection(case_gb=1.5, file_gb=0.25, depth=3).tree()

    assert (limits.bytes, limits.file_bytes, limits.depth) == (1_500_000_000, 250_000_000, 3)
    assert (limits.files, limits.path_bytes) == (100_000, 1024)
