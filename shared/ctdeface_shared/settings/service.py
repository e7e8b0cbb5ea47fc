"""The configuration of a service: settings, folders and queue."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ctdeface_shared.broker.target import BrokerTarget
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import Originals
from ctdeface_shared.settings.loading import Settings, load
from ctdeface_shared.settings.sections import BrokerSection
from ctdeface_shared.storage import atomic
from ctdeface_shared.storage.disk import STATE, FreeSpace, measure_free_space, nearest_existing
from ctdeface_shared.storage.spool import PRIVATE, ServiceSpool, require_private


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """The configuration that all commands of a service share.

    Attributes:
        settings: the settings in effect.
        spool: the folders that cases pass through.
        state_dir: folder of ledger and embedded queue.
        queue: address of the queue.
    """

    settings: Settings
    spool: ServiceSpool
    state_dir: Path
    queue: BrokerTarget

    @property
    def disk_places(self) -> dict[str, Path]:
        """Return the folders whose free space is shown.

        New cases wait for space in those of the spool only: the state is small.
        """
        return {**self.spool.disk_places, STATE: self.state_dir}

    def free_space(self) -> tuple[FreeSpace, ...]:
        """Measure each file system that the service writes to.

        Folders that do not exist yet are measured at the nearest parent.

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
        """Create missing folders and check all of them.

        Raises:
            ConfigurationError: a folder must be corrected first.
        """
        self.spool.require_apart(self.state_dir)
        self.spool.prepare(outbox_mode=self.settings.output.folder_mode)
        originals = self.settings.spool.originals
        self.spool.prepare_inbox(moves_originals=originals is not Originals.KEEP)
        try:
            atomic.make_folder(self.state_dir, mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(
                f"the state folder {self.state_dir} cannot be created: {error.strerror}; "
                "correct spool.state_dir"
            ) from error
        require_private(self.state_dir)


def find_service(
    config: Path | None, spool: Path | None = None, broker: str | None = None
) -> ServiceConfig:
    """Combine settings and command line, which overrides them.

    Args:
        config: the settings file; None for the usual places.
        spool: root of the spool; None for that of the settings.
        broker: URL of the queue; None for that of the settings.

    Raises:
        ConfigurationError: a setting or option is not valid.
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
                f"--broker: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
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
