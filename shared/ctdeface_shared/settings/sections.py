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
from ctdeface_shared.storage.tree_limits import TreeLimits


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DefaceSection(Section):
    """The default options of jobs."""

    profile: Profile = Field(
        Profile.SOFT_TISSUE,
        description="What the face mask covers: soft-tissue, or bulky with orbits and facial bone.",
    )
    ears: bool = Field(default=False, description="Remove the ears as well.")
    fill: str = Field(
        "air",
        description="Fill value: air (the case's own), p10 (as CTA-DEFACE does) or a whole number "
        "of HU, at most -800.",
    )
    headers: HeaderPolicy = Field(
        HeaderPolicy.PRESERVE,
        description="preserve keeps every header byte; annotate creates derived instances.",
    )
    on_series_failure: OnSeriesFailure = Field(
        OnSeriesFailure.QUARANTINE,
        description="When a series fails: quarantine the case, or withhold the series.",
    )
    segmenter: str = Field(
        USUAL_SEGMENTER, description="Name of the segmenter that finds the face."
    )

    @field_validator("fill", mode="before")
    @classmethod
    def _readable(cls, given: object) -> str:
        return str(FillRule.parse(str(given)))

    def options(self) -> DefaceOptions:
        """Return these settings as the options of a job."""
        return DefaceOptions(**{**self.model_dump(), "fill": FillRule.parse(self.fill)})


class OutputSection(Section):
    """Files and folders of released cases."""

    outbox_mode: str = Field(
        "0750",
        pattern="^0[0-7]{3}$",
        description="Octal mode of released folders; files get it without execute bits.",
    )
    outbox_group: str | None = Field(
        None, description="Group that owns released cases; unset: the group of the process."
    )
    min_free_gb: float = Field(
        5.0, ge=0, description="Below this free space in GB no new case begins."
    )

    @property
    def folder_mode(self) -> int:
        """Return the mode of released folders."""
        return int(self.outbox_mode, 8)

    @property
    def file_mode(self) -> int:
        """Return the mode of released files, without execute bits."""
        return self.folder_mode & 0o666


_ENDING_SECONDS = 300.0
"""Within this time after its timeout, a job has been ended and its folders released."""


class WorkSection(Section):
    """The share of the machine that is used."""

    jobs: int = Field(1, ge=1, description="Cases processed at the same time.")
    threads: int | None = Field(
        None, ge=1, description="Threads per case; unset: the jobs share the cores."
    )
    job_timeout: float = Field(
        3600.0,
        gt=0,
        description="Seconds after which a case counts as hanging and its process is killed.",
    )
    grace_period: float = Field(
        60.0,
        ge=0,
        description="Seconds a stopping worker has to finish its case; then it returns the case.",
    )
    max_attempts: int = Field(4, ge=1, description="Attempts at a case before it is quarantined.")
    memory_limit_gb: float | None = Field(
        None,
        ge=0,
        description="A case whose process holds more GB is ended; unset: an equal share of this "
        "machine's or container's memory; 0: no limit.",
    )

    @property
    def stale_seconds(self) -> float:
        """Return the age from which a job or folder is abandoned."""
        return self.job_timeout + _ENDING_SECONDS


class SpoolSection(Section):
    """The folders of a service, and how long cases are kept."""

    root: Path = Field(
        Path("spool"),
        description="Folder of inbox, outbox, reports and others; shared between machines.",
    )
    inbox: Path | None = Field(
        None, description="Where cases are dropped; unset: the folder inbox in the root."
    )
    state_dir: Path | None = Field(
        None,
        description="Ledger and embedded queue, on a local disk; unset: state in the root.",
    )
    originals: Originals = Field(
        Originals.ARCHIVE,
        description="Dropped files of a released case: archive, delete, or keep them in the inbox.",
    )
    archive_days: float | None = Field(
        None,
        gt=0,
        description="Days until archived originals and earlier outputs are removed; unset: never.",
    )
    quarantine_days: float | None = Field(
        None, gt=0, description="Days after which quarantined cases are removed; unset: never."
    )
    reports_days: float | None = Field(
        None,
        gt=0,
        description="Days after which reports of ended jobs are removed; unset: never.",
    )


class WatchMode(StrEnum):
    """What triggers a scan of the inbox."""

    INOTIFY = "inotify"
    POLLING = "polling"


class WatchSection(Section):
    """When a dropped case is complete, and limits of the watcher."""

    mode: WatchMode = Field(
        WatchMode.INOTIFY,
        description="inotify: file events trigger a scan; polling: time alone, for network shares.",
    )
    quiet_period: float = Field(
        10.0, gt=0, description="Seconds without a change after which a case is complete."
    )
    rescan_interval: float = Field(
        30.0, gt=0, description="Seconds between two scans of the inbox when nothing happens."
    )
    max_wait: float = Field(
        86400.0,
        gt=0,
        description="Seconds after which a case that never settles is reported and left alone.",
    )
    marker: str | None = Field(
        None,
        description="Name of a file that marks a case as complete; unset: the quiet period does.",
    )
    marker_only: bool = Field(default=False, description="Only the marker makes a case complete.")
    ignore: tuple[str, ...] = Field(
        ("Thumbs.db", "desktop.ini", ".DS_Store"),
        description="Patterns of file names that are ignored when a case is checked for changes.",
    )
    case_depth: int = Field(
        1, ge=1, description="Levels below the inbox at which the folders are cases."
    )
    max_unfinished: int = Field(
        1000,
        ge=1,
        description="Maximum number of jobs that have not ended; more are not published.",
    )
    zip_files: int = Field(50_000, ge=1, description="Maximum number of files in a zip file.")
    zip_gb: float = Field(50.0, gt=0, description="Maximum size of an unpacked zip file in GB.")
    zip_ratio: float = Field(
        100.0,
        gt=1,
        description="Maximum ratio of unpacked to packed size of a zip file.",
    )


_GB = 10**9


class LimitsSection(Section):
    """The maximum size of a case."""

    files: int = Field(100_000, ge=1, description="Maximum number of files in a case.")
    case_gb: float = Field(100.0, gt=0, description="Maximum size of a case in GB.")
    file_gb: float = Field(
        4.0, gt=0, description="Maximum size of one file in GB, also when it is decompressed."
    )
    depth: int = Field(
        64, ge=1, le=200, description="Maximum levels of folders below a case's folder."
    )
    path_bytes: int = Field(
        1024, ge=1, le=3000, description="Maximum length of a path in a case, in bytes."
    )

    def tree(self) -> TreeLimits:
        """Return the limits of a case's folder."""
        return TreeLimits(
            files=self.files,
            bytes=round(self.case_gb * _GB),
            file_bytes=round(self.file_gb * _GB),
            depth=self.depth,
            path_bytes=self.path_bytes,
        )


class BrokerUrl(Secret[str]):
    """A URL whose password is masked."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


class BrokerSection(Section):
    """The queue between watcher and workers."""

    url: BrokerUrl | None = Field(
        None,
        description="amqp(s)://host/vhost or sqlite:///path; unset: a file in the state folder.",
    )
    user: str | None = Field(None, description="User at RabbitMQ; overrides the one in the URL.")
    password: SecretStr | None = Field(
        None, description="Password at RabbitMQ; overrides the one in the URL."
    )
    password_file: Path | None = Field(
        None, description="File that holds the password, such as a mounted secret."
    )
    ca_file: Path | None = Field(
        None,
        description="Certificates that verify the server; unset: those of the system.",
    )
    cert_file: Path | None = Field(
        None, description="Client certificate; without a user it also authenticates the client."
    )
    key_file: Path | None = Field(
        None, description="Key of the client certificate, if it is not in the same file."
    )
    heartbeat: int = Field(
        60,
        ge=2,
        description="Seconds of silence after which a connection counts as broken (RabbitMQ).",
    )
    lease: float = Field(
        60.0,
        gt=0,
        description="Seconds a job stays with a process that does not renew it (SQLite).",
    )
    retry_delays: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RetryRule.DEFAULT_DELAYS,
        min_length=1,
        max_length=10,
        description="Delays in seconds before the second, third, … attempt.",
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
        """Return the address of the queue.

        Args:
            state_dir: folder of the embedded queue, which is the default.

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
"""The port number that turns serving off."""


class MetricsSection(Section):
    """The HTTP endpoints /metrics, /healthz and /readyz."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; 0.0.0.0: all, for scrapes from other machines.",
    )
    watch_port: int = Field(
        9464, ge=OFF, le=65535, description="Port of the watcher; 0 turns it off."
    )
    work_port: int = Field(
        9465, ge=OFF, le=65535, description="Port of the worker; 0 turns it off."
    )
    cert_file: Path | None = Field(
        None,
        description="Server certificate with its chain, for HTTPS; unset: HTTP.",
    )
    key_file: Path | None = Field(
        None, description="Key of the server certificate, if it is not in the same file."
    )
    client_ca_file: Path | None = Field(
        None,
        description="Authorities of client certificates; then only clients with one are admitted.",
    )

    @model_validator(mode="after")
    def _certificate_first(self) -> Self:
        if self.cert_file is None and (self.key_file or self.client_ca_file):
            raise ValueError(
                "key_file and client_ca_file have no effect without cert_file: "
                "set cert_file or remove them"
            )
        return self


class TracesSection(Section):
    """The collector of traces."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+/[^\s?#]*$",
        description="OTLP/HTTP address such as http://localhost:4318/v1/traces; unset: no traces.",
    )


class AuditSection(Section):
    """Keys and name of the audit log."""

    key_file: Path | None = Field(
        None,
        description="Ed25519 private key (PEM) that signs entries; unset: they are not signed.",
    )
    public_key_file: Path | None = Field(
        None, description="Public keys (PEM, one or more) that verify signatures."
    )
    writer: str | None = Field(
        None,
        pattern="^[a-z0-9][a-z0-9-]{0,62}$",
        description="Prefix of the names of this machine's chains; unset: its host name.",
    )


class ModelsSection(Section):
    """The folder of installed networks."""

    folder: Path | None = Field(
        None,
        description="Folder of installed networks; unset: ctdeface/models in the user data.",
    )

    @property
    def place(self) -> Path:
        """Return the folder in effect."""
        return self.folder or _data_home() / "ctdeface" / "models"


def _data_home() -> Path:
    """Return the user's data folder (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
