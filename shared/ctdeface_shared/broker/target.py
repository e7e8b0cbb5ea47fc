"""Where the queue is and how to reach it, as one value, from the settings to the adapters."""

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
    """A queue and how to reach it.

    Attributes:
        url: `amqp(s)://user:password@host:port/vhost`, or `sqlite:///path` with the absolute path
            of a file.
        user: comes before the URL's.
        password: comes before the URL's; never shown.
        ca_file: certificates that the server's is checked against; None for the system's.
        cert_file: our own certificate; without a user it also tells who we are.
        key_file: its key, where that is not in the same file.
        heartbeat_seconds: silence after which a connection counts as broken (RabbitMQ).
        lease_seconds: how long a delivery stays with a process that shows no life (SQLite).
        retry_delays: pauses in seconds before the second, third, … attempt; RabbitMQ has one queue
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
    """Take a broker URL apart.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in SCHEMES or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{masked(url)} is no queue: amqp://, amqps:// and sqlite:/// are known, without ? and #"
        )
    if parts.scheme == "sqlite" and (parts.netloc or parts.path in {"", "/"}):
        raise ConfigurationError(
            f"{masked(url)} names no file: write sqlite:///absolute/path/queue.sqlite3"
        )
    if parts.scheme != "sqlite" and not parts.hostname:
        raise ConfigurationError(f"{masked(url)} names no host: write {parts.scheme}://host")
    return parts


def file_of(url: str) -> Path:
    """Return the file that a `sqlite:///` URL names."""
    return Path("/" + unquote(split(url).path).lstrip("/"))


def url_of(file: Path) -> str:
    """Return the URL of an absolute path, as `file_of` reads it."""
    return "sqlite://" + quote(str(file))


def masked(url: str) -> str:
    """Return a URL as it may be shown: without its password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _MASK
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{_MASK}@{host}"))
