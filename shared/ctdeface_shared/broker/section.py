"""The table `[broker]` of the settings file."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, Secret, SecretStr, field_validator

from ctdeface_shared.broker.settlement import RetryRule
from ctdeface_shared.broker.target import BrokerTarget, masked, split, url_of
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.section import Section


class BrokerUrl(Secret[str]):
    """A URL that is shown without its password."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


class BrokerSection(Section):
    """The queue between watcher and workers."""

    url: BrokerUrl | None = Field(None, description="amqp(s)://host/vhost or sqlite:///path; none is a file in the state folder.")
    user: str | None = Field(None, description="User at RabbitMQ; comes before the one in the URL.")
    password: SecretStr | None = Field(None, description="Password at RabbitMQ; comes before the one in the URL.")
    password_file: Path | None = Field(None, description="File that holds the password, such as a mounted secret.")
    ca_file: Path | None = Field(None, description="Certificates that the server's is checked against; none takes the system's.")
    cert_file: Path | None = Field(None, description="Our own certificate; without a user it also says who we are.")
    key_file: Path | None = Field(None, description="Key of our certificate, where it is not in the same file.")
    heartbeat: int = Field(60, ge=2, description="Seconds of silence after which a connection counts as broken (RabbitMQ).")
    lease: float = Field(60.0, gt=0, description="Seconds a case stays with a process that shows no life (SQLite).")
    retry_delays: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RetryRule.DEFAULT_DELAYS, min_length=1, max_length=10, description="Seconds before the second, third, … attempt."
    )

    @field_validator("url")
    @classmethod
    def _known(cls, given: BrokerUrl | None) -> BrokerUrl | None:
        if given:
            try:
                split(given.get_secret_value())
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return given

    def target(self, state_dir: Path) -> BrokerTarget:
        """Return the same as the value that opens the queue.

        Args:
            state_dir: where the embedded queue lies if no URL says otherwise.

        Raises:
            ConfigurationError: the file with the password cannot be read.
        """
        password = self.password.get_secret_value() if self.password else None
        try:
            if self.password_file:
                password = self.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"broker.password_file {self.password_file} cannot be read: {error}"
            raise ConfigurationError(message) from None
        same = {name: getattr(self, name) for name in ("user", "ca_file", "cert_file", "key_file", "retry_delays")}
        url = self.url.get_secret_value() if self.url else url_of(state_dir.resolve() / "queue.sqlite3")
        return BrokerTarget(url=url, password=password, heartbeat_seconds=self.heartbeat, lease_seconds=self.lease, **same)
