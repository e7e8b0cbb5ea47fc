"""The address of the queue and its URL."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from ctdeface_shared.broker.settlement import RetryRule
from ctdeface_shared.errors import ConfigurationError

SCHEMES = ("amqp", "amqps", "sqlite")
_MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTarget:
    """A queue and how to connect to it.

    Attributes:
        url: `amqp(s)://user:password@host:port/vhost`, or `sqlite:///path` with the absolute path
            of a file.
        user: overrides the user in the URL.
        password: overrides the password in the URL; never shown.
        ca_file: certificates that verify the server; None for those of the system.
        cert_file: client certificate; without a user it also authenticates the client.
        key_file: key of the client certificate, if it is not in the same file.
        heartbeat_seconds: silence after which a connection counts as broken (RabbitMQ).
        lease_seconds: how long a delivery stays with a process that does not renew it (SQLite).
        retry_delays: delays in seconds before the second, third, … attempt; RabbitMQ has one queue
            per delay.
    """

    url: str = field(repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    heartbeat_seconds: int = 60
    lease_seconds: float = 60.0
    retry_delays: Sequence[float] = RetryRule.DEFAULT_DELAYS


def split(url: str) -> SplitResult:
    """Split a broker URL into its parts.

    Raises:
        ConfigurationError: it is not a broker URL.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in SCHEMES or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{masked(url)} is not a broker URL: amqp://, amqps:// or sqlite:/// is required, "
            "without ? and #"
        )
    if parts.scheme == "sqlite" and (parts.netloc or parts.path in {"", "/"}):
        raise ConfigurationError(
            f"{masked(url)} does not name a file: write sqlite:///absolute/path/queue.sqlite3"
        )
    if parts.scheme != "sqlite" and not parts.hostname:
        raise ConfigurationError(f"{masked(url)} does not name a host: write {parts.scheme}://host")
    return parts


def file_of(url: str) -> Path:
    """Return the file that a `sqlite:///` URL names."""
    return Path("/" + unquote(split(url).path).lstrip("/"))


def url_of(file: Path) -> str:
    """Return the URL of an absolute path, as `file_of` reads it."""
    return "sqlite://" + quote(str(file))


def masked(url: str) -> str:
    """Return a URL with its password masked."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _MASK
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{_MASK}@{host}"))
