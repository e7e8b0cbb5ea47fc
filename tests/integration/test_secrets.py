"""No command shows a secret, whatever goes wrong, and no log line holds one."""

import io
import logging
from pathlib import Path

import pytest

from ctdeface_shared import logs
from ctdeface_shared.audit.keys import make_key_pair
from ctdeface_shared.broker import open_broker
from ctdeface_shared.commands.main import main
from ctdeface_shared.errors import BrokerUnavailable
from ctdeface_shared.settings.loading import keys, variable_of
from ctdeface_shared.settings.service import find_service
from tests.support.service.audited import write

SECRETS = {
    "uid_key": "uid-key-of-24-letters-abc",
    "password in the URL": "word-in-url-1234",
    "password": "word-in-settings-1234",
    "password file": "word-in-a-file-1234",
}
COMMANDS = (
    ["config"],
    ["doctor"],
    ["broker", "check"],
    ["broker", "init"],
    ["audit", "head"],
    ["audit", "verify", "--chains-only"],
    ["replay", "nobody"],
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings with every kind of secret, and a queue that nobody answers at."""
    for key in keys():
        monkeypatch.delenv(variable_of(key), raising=False)
    (tmp_path / "password").write_text(f"{SECRETS['password file']}\n", encoding="utf-8")
    made = tmp_path / "site.toml"
    made.write_text(
        f'uid_key = "{SECRETS["uid_key"]}"\n'
        f'[spool]\nroot = "{tmp_path / "spool"}"\n'
        "[output]\nmin_free_gb = 0\n"
        f'[broker]\nurl = "amqp://me:{SECRETS["password in the URL"]}@127.0.0.1:9/ct"\n'
        f'password = "{SECRETS["password"]}"\n'
        f'password_file = "{tmp_path / "password"}"\n'
        f'[audit]\nkey_file = "{tmp_path / "audit.key"}"\n',
        encoding="utf-8",
    )
    signer = make_key_pair(tmp_path / "audit.key")
    find_service(made).prepare()
    write(tmp_path / "spool", "job", key=signer)
    return made


def secrets_in(text: str, file: Path) -> list[str]:
    """Which secrets a text holds; the private key counts by any of its lines."""
    key = [
        line
        for line in file.with_name("audit.key").read_text(encoding="ascii").splitlines()
        if "-----" not in line
    ]
    return [
        name
        for name, secret in {**SECRETS, **{f"key {n}": line for n, line in enumerate(key)}}.items()
        if secret in text
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_secret(
    command: list[str], file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No command prints a secret, though each reads the settings."""
    main([command[0], "--config", str(file), *command[1:]])
    shown = capfd.readouterr()
    assert shown.out + shown.err
    assert secrets_in(shown.out + shown.err, file) == []


def test_a_queue_that_does_not_answer_is_logged_without_its_password(file: Path) -> None:
    """Whatever the library has to say about the address; at the finest level too."""
    stream = io.StringIO()
    logs.configure(stream, logging.DEBUG)
    broker = open_broker(find_service(file).queue)
    try:
        with pytest.raises(BrokerUnavailable) as met:
            broker.depth()
        logs.logger("test").warning("queue_not_reachable", exc_info=met.value)
    finally:
        broker.close()
        logs.configure()
    assert "queue_not_reachable" in stream.getvalue()
    assert secrets_in(stream.getvalue() + str(met.value) + repr(find_service(file)), file) == []


@pytest.mark.parametrize(
    "table",
    ["[broker]\nurl = 'amqp://me:{}@:x'", "[broker]\npassword = ['{}']", "uid_key = ['{}']"],
)
def test_a_secret_in_a_setting_that_is_refused_is_not_repeated(
    table: str, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The complaint names the key only."""
    secret = "never-to-be-seen"
    file.write_text(table.format(secret), encoding="utf-8")
    assert main(["config", "--config", str(file)]) == 78
    assert secret not in "".join(capfd.readouterr())
