"""The tables of the settings file."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Secret,
    SecretStr,
    field_validator,
    model_validator,
)

from ctdeface_shared.broker.settlement import RetryRule
from ctdeface_shared.broker.target import BrokerTarget, masked, split, url_of
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.jobs.options import (
    USUAL_SEGMENTER,
    DefaceOptions,
    FillRule,
    HeaderPolicy,
    OnSeriesFailure,
    Originals,
    Profile,
)


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DefaceSection(Section):
    """What is done to each case, unless a job says otherwise."""

    profile: Profile = Field(
        Profile.SOFT_TISSUE,
        description="What the face mask covers: soft-tissue, or bulky (orbits and facial bone too).",
    )
    ears: bool = Field(default=False, description="Remove the ears as well.")
    fill: str = Field(
        "air",
        description="Fill value: air (the case's own), p10 (as CTA-DEFACE does) or a whole number of HU up to -800.",
    )
    headers: HeaderPolicy = Field(
        HeaderPolicy.PRESERVE,
        description="preserve keeps every header byte; annotate makes derived instances.",
    )
    on_series_failure: OnSeriesFailure = Field(
        OnSeriesFailure.QUARANTINE,
        description="If a series fails: quarantine the case, or withhold it.",
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

    outbox_mode: str = Field(
        "0750",
        pattern="^0[0-7]{3}$",
        description="Octal mode of released folders; files: the same, not executable.",
    )
    outbox_group: str | None = Field(
        None, description="Group that owns released cases; none keeps the process's own."
    )
    min_free_gb: float = Field(
        5.0, ge=0, description="Below this free space in GB no new case is begun."
    )

    @property
    def folder_mode(self) -> int:
        """Mode of released folders."""
        return int(self.outbox_mode, 8)

    @property
    def file_mode(self) -> int:
        """Mode of released files: the folder's without execute bits."""
        return self.folder_mode & 0o666


_ENDING_SECONDS = 300.0
"""A job that exceeded its timeout has been ended, and its folders released, within this time."""


class WorkSection(Section):
    """How much of the machine is used."""

    jobs: int = Field(1, ge=1, description="Cases worked on at the same time.")
    threads: int | None = Field(
        None, ge=1, description="Threads per case; none shares the machine's cores among the jobs."
    )
    job_timeout: float = Field(
        3600.0,
        gt=0,
        description="Seconds after which a case counts as hanging and its process is ended.",
    )
    grace_period: float = Field(
        60.0,
        ge=0,
        description="Seconds a stopping worker has to finish its case before it hands it back.",
    )
    max_attempts: int = Field(4, ge=1, description="Attempts at a case before it is quarantined.")
    memory_limit_gb: float | None = Field(
        None,
        gt=0,
        description="A case whose process holds more than this is ended; none sets no limit.",
    )

    @property
    def stale_seconds(self) -> float:
        """Seconds without a sign of life after which a job or folder is abandoned."""
        return self.job_timeout + _ENDING_SECONDS


class SpoolSection(Section):
    """Where the service keeps cases, and for how long."""

    root: Path = Field(
        Path("spool"),
        description="Folder of inbox, outbox, quarantine, reports and the rest; shared between machines.",
    )
    inbox: Path | None = Field(
        None, description="Where cases are dropped; none is the folder inbox in the root."
    )
    state_dir: Path | None = Field(
        None,
        description="Ledger and embedded queue, on a local disk; none is the folder state in the root.",
    )
    originals: Originals = Field(
        Originals.ARCHIVE,
        description="Dropped files of a released case: archive, delete, or keep them in the inbox.",
    )
    archive_days: float | None = Field(
        None,
        gt=0,
        description="Archived originals and earlier outputs are removed after so many days.",
    )
    quarantine_days: float | None = Field(
        None, gt=0, description="Quarantined cases are removed after so many days; none keeps them."
    )
    reports_days: float | None = Field(
        None,
        gt=0,
        description="Reports of ended jobs are removed after so many days; none keeps them.",
    )


class WatchMode(StrEnum):
    """What makes the watcher look."""

    INOTIFY = "inotify"
    POLLING = "polling"


class WatchSection(Section):
    """When a dropped case is complete, and how many may be on their way."""

    mode: WatchMode = Field(
        WatchMode.INOTIFY,
        description="inotify: events make it look sooner; polling: for network shares.",
    )
    quiet_period: float = Field(
        10.0, gt=0, description="Seconds without a change after which a case is complete."
    )
    rescan_interval: float = Field(
        30.0, gt=0, description="Seconds between two looks at the inbox when nothing happens."
    )
    max_wait: float = Field(
        86400.0,
        gt=0,
        description="Seconds after which a case that never settles is reported and left alone.",
    )
    marker: str | None = Field(
        None,
        description="Name of a file that says a case is complete; none waits for the quiet period only.",
    )
    marker_only: bool = Field(
        default=False, description="Whether only the marker makes a case complete."
    )
    ignore: tuple[str, ...] = Field(
        ("Thumbs.db", "desktop.ini", ".DS_Store"),
        description="Patterns of names that do not keep a case waiting.",
    )
    case_depth: int = Field(
        1, ge=1, description="Cases are the folders so many levels below the inbox."
    )
    max_unfinished: int = Field(
        1000, ge=1, description="No more jobs are published while so many have not ended."
    )
    zip_files: int = Field(
        50_000, ge=1, description="A dropped zip file with more files is refused."
    )
    zip_gb: float = Field(
        50.0, gt=0, description="A dropped zip file that unpacks to more GB is refused."
    )
    zip_ratio: float = Field(
        100.0,
        gt=1,
        description="A dropped zip file that unpacks to more than so many times its size is refused.",
    )


class BrokerUrl(Secret[str]):
    """A URL that is shown without its password."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


class BrokerSection(Section):
    """The queue between watcher and workers."""

    url: BrokerUrl | None = Field(
        None,
        description="amqp(s)://host/vhost or sqlite:///path; none is a file in the state folder.",
    )
    user: str | None = Field(None, description="User at RabbitMQ; comes before the one in the URL.")
    password: SecretStr | None = Field(
        None, description="Password at RabbitMQ; comes before the one in the URL."
    )
    password_file: Path | None = Field(
        None, description="File that holds the password, such as a mounted secret."
    )
    ca_file: Path | None = Field(
        None,
        description="Certificates that the server's is checked against; none takes the system's.",
    )
    cert_file: Path | None = Field(
        None, description="Our own certificate; without a user it also says who we are."
    )
    key_file: Path | None = Field(
        None, description="Key of our certificate, where it is not in the same file."
    )
    heartbeat: int = Field(
        60,
        ge=2,
        description="Seconds of silence after which a connection counts as broken (RabbitMQ).",
    )
    lease: float = Field(
        60.0, gt=0, description="Seconds a case stays with a process that shows no life (SQLite)."
    )
    retry_delays: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RetryRule.DEFAULT_DELAYS,
        min_length=1,
        max_length=10,
        description="Seconds before the second, third, … attempt.",
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
            raise ConfigurationError(
                f"broker.password_file {self.password_file} cannot be read: {error}"
            ) from None
        same = {
            name: getattr(self, name)
            for name in ("user", "ca_file", "cert_file", "key_file", "retry_delays")
        }
        url = (
            self.url.get_secret_value()
            if self.url
            else url_of(state_dir.resolve() / "queue.sqlite3")
        )
        return BrokerTarget(
            url=url,
            password=password,
            heartbeat_seconds=self.heartbeat,
            lease_seconds=self.lease,
            **same,
        )


OFF = 0
"""A port of this number means that nothing is served."""


class MetricsSection(Section):
    """Where watcher and worker tell how they are: /metrics, /healthz and /readyz."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen at; 0.0.0.0 is every one, for scrapes from elsewhere.",
    )
    watch_port: int = Field(
        9464, ge=OFF, le=65535, description="Port of the watcher; 0 turns it off."
    )
    work_port: int = Field(
        9465, ge=OFF, le=65535, description="Port of the worker; 0 turns it off."
    )
    cert_file: Path | None = Field(
        None,
        description="Our certificate, with those that vouch for it: serves https; none serves http.",
    )
    key_file: Path | None = Field(
        None, description="Key of that certificate, where it is not in the same file."
    )
    client_ca_file: Path | None = Field(
        None, description="Lets in only who shows a certificate of these authorities."
    )

    @model_validator(mode="after")
    def _certificate_first(self) -> Self:
        if self.cert_file is None and (self.key_file or self.client_ca_file):
            raise ValueError(
                "key_file and client_ca_file mean nothing without cert_file: nothing would be encrypted"
            )
        return self


class TracesSection(Section):
    """Where traces of cases are sent."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+/[^\s?#]*$",
        description="OTLP/HTTP address such as http://localhost:4318/v1/traces; none sends nothing.",
    )


class AuditSection(Section):
    """Who signs the entries about ended cases, and under which name."""

    key_file: Path | None = Field(
        None, description="Ed25519 private key (PEM) that signs entries; none leaves them unsigned."
    )
    public_key_file: Path | None = Field(
        None, description="Public keys (PEM, one or more) that signatures are checked against."
    )
    writer: str | None = Field(
        None,
        pattern="^[a-z0-9][a-z0-9-]{0,62}$",
        description="Begin of the names of this machine's chains; none is its host name.",
    )


class ModelsSection(Section):
    """Networks that were installed besides the shipped one."""

    folder: Path | None = Field(
        None,
        description="Folder of installed networks; none is ctdeface/models among the user's data.",
    )

    @property
    def place(self) -> Path:
        """The folder in effect."""
        return self.folder or _data_home() / "ctdeface" / "models"


def _data_home() -> Path:
    """Return the user's folder for data (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
