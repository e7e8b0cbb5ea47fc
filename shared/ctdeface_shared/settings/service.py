"""Where a service runs: the settings, the spool and the queue that command line, environment and file name together."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.settings.loading import Settings, load
from ctdeface_shared.settings.sections import BrokerSection
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.disk import FreeSpace, measure_free_space, nearest_existing
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """One service, as each of its commands sees it.

    Attributes:
        settings: what is in effect.
        spool: where cases pass through.
        state_dir: ledger and embedded queue.
        queue: how to reach the queue.
    """

    settings: Settings
    spool: ServiceSpool
    state_dir: Path
    queue: BrokerTarget

    @property
    def disk_places(self) -> dict[str, Path]:
        """Return the folders whose free space is watched."""
        return {**self.spool.disk_places, "state": self.state_dir}

    def free_space(self) -> tuple[FreeSpace, ...]:
        """Measure each file system that the service writes to, also before its first start.

        Raises:
            OSError: a folder cannot be examined.
        """
        places = {name: nearest_existing(folder) for name, folder in self.disk_places.items()}
        return measure_free_space(places, self.settings.output.min_free_gb)

    def require_spool(self) -> None:
        """Check that a service was started here before.

        Raises:
            ConfigurationError: the spool has no folder of reports.
        """
        if not self.spool.reports.is_dir():
            raise ConfigurationError(
                f"no service was started at {self.spool.reports.parent} yet: "
                "give its folder with --spool"
            )

    def prepare(self) -> None:
        """Create what is missing and check that everything can be moved and published at once.

        Raises:
            ConfigurationError: a folder must be put right first.
        """
        self.spool.require_apart(self.state_dir)
        self.spool.prepare(outbox_mode=self.settings.output.folder_mode)
        self.spool.prepare_inbox(self.settings.spool.originals)
        try:
            atomic.make_folder(self.state_dir, mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(
                f"the state folder {self.state_dir} cannot be made: {error.strerror}"
            ) from error


def find_service(
    config: Path | None, spool: Path | None = None, broker: str | None = None
) -> ServiceConfig:
    """Put settings and command line together; what the command line says comes first.

    Args:
        config: the settings file, None for the usual places.
        spool: root of the spool, None for the settings'.
        broker: URL of the queue, None for the settings'.

    Raises:
        ConfigurationError: something in them must be put right first.
    """
    settings = load(config).settings
    if spool is not None:
        settings = settings.model_copy(
            update={"spool": settings.spool.model_copy(update={"root": spool})}
        )
    if broker is not None:
        try:
            section = BrokerSection.model_validate(settings.broker.model_dump() | {"url": broker})
        except ValidationError as error:
            raise ConfigurationError(
                error.errors()[0]["msg"].removeprefix("Value error, ")
            ) from None
        settings = settings.model_copy(update={"broker": section})
    root = settings.spool.root.absolute()
    state_dir = (settings.spool.state_dir or root / "state").absolute()
    inbox = settings.spool.inbox.absolute() if settings.spool.inbox else None
    return ServiceConfig(
        settings=settings,
        spool=ServiceSpool.under(root, inbox),
        state_dir=state_dir,
        queue=settings.broker.target(state_dir),
    )
