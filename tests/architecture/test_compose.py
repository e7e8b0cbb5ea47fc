"""deploy/compose.yaml and the Dockerfile are valid; no container is run here."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from ctdeface_shared.settings.loading import Settings
from deploy.pin_images import FILES, ask, images, with_digests
from deploy.setup_venv import SetupError
from tests.architecture.deployed import (
    DEPLOY,
    IMAGE,
    WATCH_PORT,
    WORK_PORT,
    Document,
    accepted,
    documents,
    lineage,
    refuse_unknown_command,
    stages,
)
from tests.architecture.sources import ROOT

(COMPOSE,) = documents(DEPLOY / "compose.yaml")
SERVICES: dict[str, Document] = COMPOSE["services"]
OURS = {"setup", "watcher", "worker"}
STAGES = stages(DEPLOY / "docker/Dockerfile")
MADE = DEPLOY / "secrets"
"""What deploy/docker/make_secrets.py makes."""


def test_the_file_follows_the_compose_specification() -> None:
    """With the schema that check-jsonschema brings; keys that come twice are refused as well."""
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_has_no_known_mistake() -> None:
    """As hadolint knows them; its mere advice counts as well."""
    tool = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [tool, "--no-color", DEPLOY / "docker/Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_is_there(name: str) -> None:
    """Images, stages, networks, volumes, secrets, mounts and awaited services exist."""
    service = SERVICES[name]
    if "build" in service:
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
        assert service["image"] == f"ctdeface-{build['target']}"
        assert build["target"] in STAGES
    else:
        assert IMAGE.fullmatch(service["image"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    named = {
        secret if isinstance(secret, str) else secret["source"]
        for secret in service.get("secrets", [])
    }
    assert named <= set(COMPOSE["secrets"])
    for source in (
        volume.rpartition(":/")[0]
        for volume in (re.sub(r":ro$", "", one) for one in service.get("volumes", []))
    ):
        assert (
            source in COMPOSE["volumes"]
            or source.startswith("${CTDEFACE_SPOOL:-")
            or (DEPLOY / source).exists()
        )
    assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_every_secret_is_one_that_the_script_makes(tmp_path: Path) -> None:
    """Files in deploy/secrets, which git does not keep."""
    subprocess.run(
        [sys.executable, DEPLOY / "docker/make_secrets.py", tmp_path],
        check=True,
        capture_output=True,
    )
    for secret in COMPOSE["secrets"].values():
        file = DEPLOY / secret["file"]
        assert file.parent == MADE
        assert (tmp_path / file.name).is_file()
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_run_commands_and_settings_that_exist(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, settings and the mounted password file are accepted by the program."""
    service = SERVICES[name]
    refuse_unknown_command(service["command"])
    accepted(service["environment"], monkeypatch)
    (secret,) = service["secrets"]
    assert (
        service["environment"]["CTDEFACE_BROKER__PASSWORD_FILE"]
        == f"/run/secrets/{secret['target']}"
    )
    users = {user["name"] for user in documents(DEPLOY / "rabbitmq/definitions.json")[0]["users"]}
    assert service["environment"]["CTDEFACE_BROKER__USER"] in users
    address = re.fullmatch(r"amqp://(\w+):5672", service["environment"]["CTDEFACE_BROKER__URL"])
    assert address
    assert address[1] in SERVICES


def test_workers_name_their_audit_chains_and_sign_them_once_the_comment_signs_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Audit chains have stable names, and the page counts the lines that sign them."""
    assert SERVICES["worker"]["environment"]["CTDEFACE_AUDIT__WRITER"] == "worker"
    text, lines = re.subn(
        r"^( *)# (.*audit_key.*)$",
        r"\1\2",
        (DEPLOY / "compose.yaml").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    signing = yaml.safe_load(text)
    worker = signing["services"]["worker"]
    accepted(worker["environment"], monkeypatch)
    (target,) = [
        secret["target"] for secret in worker["secrets"] if secret["source"] == "audit_key"
    ]
    assert worker["environment"]["CTDEFACE_AUDIT__KEY_FILE"] == f"/run/secrets/{target}"
    assert (lines, signing["secrets"]["audit_key"]["file"]) == (3, "./secrets/audit.key")


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_may_do_as_little_as_possible(name: str) -> None:
    """Containers run without root, capabilities or Internet, on read-only file systems."""
    service = SERVICES[name]
    assert service["user"] == "${CTDEFACE_UID:-10001}:${CTDEFACE_GID:-10001}"
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert service["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert {volume.rpartition(":")[2] for volume in service.get("volumes", [])} <= {
        "/spool",
        "/state",
    }


def test_a_worker_has_time_to_hand_its_case_back() -> None:
    """Containers are killed after the grace period of the setting, not within it."""
    assert (
        float(SERVICES["worker"]["stop_grace_period"].removesuffix("s"))
        > Settings().work.grace_period
    )


def test_nothing_is_published_beyond_this_machine() -> None:
    """Every port is bound to the loopback address."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize(
    ("target", "port", "command"), [("watcher", WATCH_PORT, "watch"), ("worker", WORK_PORT, "work")]
)
def test_each_image_runs_as_nobody_and_asks_for_its_health(
    target: str, port: int, command: str
) -> None:
    """The last user is 10001, and the health check asks the port that is served."""
    text = "".join(reversed(list(lineage(target, STAGES))))
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "10001:10001"
    (check,) = re.findall(r"^HEALTHCHECK (.*)$", text, re.MULTILINE)
    assert f"http://127.0.0.1:{port}/healthz" in check
    assert f"EXPOSE {port}\n" in text
    assert (
        re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE),
        re.findall(r"^CMD (.*)$", text, re.MULTILINE),
    ) == (
        ['["ctdeface"]'],
        [f'["{command}"]'],
    )


def test_the_dockerfile_names_settings_files_and_images_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings, sources of COPY and base images exist, without a registry host."""
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8")
    accepted(dict(re.findall(r"\b(CTDEFACE_\w+)=(\S+)", text)), monkeypatch)
    allowed = (DEPLOY / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in allowed
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert base in STAGES or IMAGE.fullmatch(base)


WITHOUT_DIGEST = {
    "rabbitmq:4.1-management": "its registry could not be asked yet: make images",
}
"""Public image -> why it has no digest; our own images are built from this repository."""


def test_every_public_image_is_pinned_by_its_digest() -> None:
    """Or has a written reason; another content under the same name is then not taken."""
    found = {
        name: digest
        for file in FILES
        for name, digest in images(file.read_text(encoding="utf-8")).items()
    }
    assert len(found) >= 4
    assert {name for name, digest in found.items() if not digest} == set(WITHOUT_DIGEST)


def test_digests_are_written_beside_the_versions() -> None:
    """An old digest is replaced; stages and our own images stay as they are."""
    text = f"FROM a/b:1@sha256:{'0' * 64} AS x\nFROM x AS y\n    image: c:2 # d\n    image: ours\n"
    assert with_digests(text, lambda image: f"sha256:{image}") == (
        "FROM a/b:1@sha256:a/b:1 AS x\nFROM x AS y\n"
        "    image: c:2@sha256:c:2 # d\n    image: ours\n"
    )


@pytest.mark.parametrize(
    ("answer", "expected"), [("sha256:" + "a" * 64, "sha256:" + "a" * 64), ("v1", "no digest")]
)
def test_docker_is_asked_for_a_digest(
    answer: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in program; an answer that is not a digest changes nothing."""
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\necho {answer}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    if expected.startswith("sha256"):
        assert ask("a:1") == expected
    else:
        with pytest.raises(SetupError, match=expected):
            ask("a:1")


def test_images_are_built_with_the_hashes_of_the_set_up() -> None:
    """No stage calls pip by itself."""
    for stage, extras in (("watcher-build", "watcher traces"), ("worker-build", "watcher worker")):
        assert f"setup_venv.py --into /opt/ctdeface {extras}" in STAGES[stage]
    assert not re.search(r"\bpip install\b", "".join(STAGES.values()))


def needed(extra: str) -> set[str]:
    """Return every installed package that an extra needs."""
    found: set[str] = set()
    waiting = [("ctdeface", frozenset({"", extra}))]
    while waiting:
        name, extras = waiting.pop()
        for line in metadata.requires(name) or []:
            one = Requirement(line)
            wanted = one.marker is None or any(
                one.marker.evaluate({"extra": each}) for each in extras
            )
            if wanted and one.name.lower() not in found:
                found.add(one.name.lower())
                waiting.append((one.name, frozenset({"", *one.extras})))
    return found


def test_the_watchers_image_needs_no_imaging_library_and_the_workers_does() -> None:
    """What the extra `watcher` brings, with all that it brings in turn; pydicom reads headers."""
    heavy: Any = {"torch", "numpy", "simpleitk", "nnunetv2", "scipy"}
    assert not (needed("watcher") | needed("traces")) & heavy
    assert needed("worker") >= heavy


def test_prometheus_and_grafana_find_what_is_mounted() -> None:
    """The configuration, the rules beside it, the data source and the folder of the dashboards."""
    mounts = {
        one.split(":")[1]: one.split(":")[0]
        for name in ("prometheus", "grafana")
        for one in SERVICES[name]["volumes"]
    }
    config = SERVICES["prometheus"]["command"][0].removeprefix("--config.file=")
    place = next(place for place in mounts if config.startswith(f"{place}/"))
    assert (DEPLOY / mounts[place] / config.removeprefix(f"{place}/")).is_file()
    (scrapes,) = documents(DEPLOY / "prometheus/compose.yml")
    ports = {
        job["job_name"]: re.findall(r"\b94\d\d\b", str(job)) for job in scrapes["scrape_configs"]
    }
    assert (ports["ctdeface-watcher"], ports["ctdeface-worker"]) == (
        [str(WATCH_PORT)],
        [str(WORK_PORT)],
    )
    (provider,) = documents(DEPLOY / "grafana/provisioning/dashboards/ctdeface.yml")[0]["providers"]
    assert list((DEPLOY / mounts[provider["options"]["path"]]).glob("*.json"))
    (source,) = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")[0][
        "datasources"
    ]
    for board in (DEPLOY / "grafana/dashboards").glob("*.json"):
        assert set(re.findall(r'"uid": "([\w-]+)"', board.read_text(encoding="utf-8"))) == {
            source["uid"],
            documents(board)[0]["uid"],
        }
