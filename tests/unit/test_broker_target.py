"""Where a queue is: URLs, file systems, names in RabbitMQ."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctdeface_shared.broker.target import file_of, masked, split, url_of
from ctdeface_shared.broker.topology import DEAD, JOBS, nearest, queues, retry_queue
from ctdeface_shared.errors import ConfigurationError
from ctdeface_shared.settings.sections import BrokerSection
from ctdeface_shared.storage.file_systems import NETWORK_KINDS, kind_of, require_local

MOUNTS = [
    "/dev/sda1 / ext4 rw 0 0",
    "server:/export /mnt/share nfs4 rw 0 0",
    "/dev/sdb1 /mnt/share/local xfs rw 0 0",
    "//nas/ct /mnt/with\\040space cifs rw 0 0",
    "proc /proc proc rw 0 0",
    "server:/other /over nfs rw 0 0",
    "tmpfs /over tmpfs rw 0 0",
]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "queue",
        "http://host",
        "amqp:/host",
        "amqp://",
        "amqp://h?x=1",
        "amqp://h:port",
        "sqlite://",
        "sqlite:///",
    ],
)
def test_what_is_no_queue_is_refused_with_a_sentence(url: str) -> None:
    """A URL that names no queue is a configuration error."""
    with pytest.raises(ConfigurationError, match=r"is not a broker URL|does not name a"):
        split(url)


def test_a_password_in_a_url_is_never_shown() -> None:
    """Neither the masked form nor a complaint nor the settings repeat it."""
    url = "amqp://me:s3cret@host/vhost"
    section = BrokerSection.model_validate({"url": url, "password": "s3cret"})
    shown = [
        masked(url),
        str(section),
        repr(section),
        str(section.url),
        repr(section.target(Path("/state"))),
    ]
    with pytest.raises(ConfigurationError) as met:
        split(url.replace("amqp", "http"))
    assert not [text for text in [*shown, str(met.value)] if "s3cret" in text]
    assert masked(url) == "amqp://me:***@host/vhost"


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
        min_size=1,
        max_size=3,
    )
)
def test_any_absolute_path_can_be_a_queue(parts: list[str]) -> None:
    """A path that became a URL is read back as the same path."""
    file = Path("/", *parts)
    assert file_of(url_of(file)) == file


def test_the_embedded_queue_is_the_default_and_lies_in_the_state_folder(tmp_path: Path) -> None:
    """Without a URL the queue is a file in the state folder."""
    assert file_of(BrokerSection().target(tmp_path).url) == tmp_path.resolve() / "queue.sqlite3"


def test_a_password_file_comes_before_the_password(tmp_path: Path) -> None:
    """A secret is read without its line end; a missing file is a configuration error."""
    secret = tmp_path / "secret"
    secret.write_text("from file\n", encoding="utf-8")
    section = BrokerSection.model_validate({"password": "from settings", "password_file": secret})
    assert section.target(tmp_path).password == "from file"
    secret.unlink()
    with pytest.raises(ConfigurationError, match="password_file"):
        section.target(tmp_path)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/state", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/local/x", "xfs"),
        ("/mnt/with space/x", "cifs"),
        ("/over/x", "tmpfs"),
    ],
)
def test_the_deepest_and_latest_mount_counts(path: str, kind: str) -> None:
    """The kind of file system is that of the mount that really holds the path."""
    assert kind_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre"])
def test_file_systems_of_several_machines_are_known(kind: str) -> None:
    """SQLite is refused on each of them."""
    assert (
        kind_of(Path("/x/state"), ["/dev/sda1 / ext4 rw 0 0", f"far /x {kind} rw 0 0"])
        in NETWORK_KINDS
    )


def test_a_local_folder_is_accepted(tmp_path: Path) -> None:
    """The machine's own disk passes, even for a folder that is yet to be made."""
    require_local(tmp_path / "state")


def test_everything_that_correctness_needs_is_an_argument() -> None:
    """All queues are quorum queues that reject instead of drop, with confirmed transfers."""
    declared = {queue.name: queue.arguments for queue in queues((30.0, 0.5))}
    assert set(declared) == {JOBS, DEAD, "ctdeface.v1.retry.30000ms", "ctdeface.v1.retry.500ms"}
    assert all(
        found["x-queue-type"] == "quorum" and found["x-overflow"] == "reject-publish"
        for found in declared.values()
    )
    assert {
        name
        for name, found in declared.items()
        if found.get("x-dead-letter-strategy") == "at-least-once"
    } == set(declared) - {DEAD}
    assert declared[retry_queue(30.0)]["x-message-ttl"] == 30_000
    assert declared[retry_queue(30.0)]["x-dead-letter-routing-key"] == JOBS


@given(asked=st.floats(0, 10_000), delays=st.lists(st.floats(0.1, 3600), min_size=1, max_size=5))
def test_a_pause_without_a_queue_takes_the_nearest_one(asked: float, delays: list[float]) -> None:
    """No retry is lost for want of a queue with just its delay."""
    found = nearest(asked, delays)
    assert found in delays
    assert all(abs(found - asked) <= abs(other - asked) for other in delays)
