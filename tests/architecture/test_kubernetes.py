"""deploy/kubernetes is valid by the API schemas; no cluster is used here."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctdeface_shared.broker.topology import JOBS
from tests.architecture.deployed import (
    DEPLOY,
    WATCH_PORT,
    WORK_PORT,
    Document,
    accepted,
    documents,
    refuse_unknown_command,
)
from tests.architecture.kustomized import built

BASE = DEPLOY / "kubernetes/base"
OVERLAY = DEPLOY / "kubernetes/overlays/hospital"
(KUSTOMIZATION,) = documents(BASE / "kustomization.yaml")
OBJECTS = [document for file in KUSTOMIZATION["resources"] for document in documents(BASE / file)]


def named(objects: Iterable[Document]) -> dict[tuple[str, str], Document]:
    """Return objects by kind and name."""
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


NAMED = named(OBJECTS)
PODS = {
    name: each["spec"]["template"]["spec"]
    for (kind, name), each in NAMED.items()
    if kind in {"Deployment", "Job"}
}
SETTINGS: dict[str, str] = NAMED["ConfigMap", "ctdeface"]["data"]
PAGE = (DEPLOY.parent / "docs/run/deployment.md").read_text(encoding="utf-8")
SECRET_KEYS = set(re.findall(r"--from-(?:file|literal)=([\w-]+)", PAGE))
BY_ANOTHER = {"ScaledObject", "TriggerAuthentication"}
"""Kinds of KEDA's, for which the API has no schema."""


def validated(file: Path) -> str:
    """Hold a file against the schemas, unknown fields forbidden, and return what is said."""
    tool = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([tool, "--strict", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("file", KUSTOMIZATION["resources"])
def test_the_base_follows_the_schemas(file: str) -> None:
    """Each object but KEDA's is known to the API."""
    said = validated(BASE / file)
    known = [each for each in documents(BASE / file) if each["kind"] not in BY_ANOTHER]
    assert said.count(" passed for resource ") == len(known)


def test_no_file_is_left_out() -> None:
    """Every file of base and overlay is a resource or a patch."""
    (overlay,) = documents(OVERLAY / "kustomization.yaml")
    assert {file.name for file in BASE.glob("*.yaml")} == {
        "kustomization.yaml",
        *KUSTOMIZATION["resources"],
    }
    assert {file.name for file in OVERLAY.glob("*.yaml")} == {
        "kustomization.yaml",
        *(patch["path"] for patch in overlay["patches"]),
    }
    for patch in overlay["patches"]:
        for each in documents(OVERLAY / patch["path"]):
            assert (each["kind"], each["metadata"]["name"]) in NAMED
    assert {image["name"] for image in overlay["images"]} == {"ctdeface-watcher", "ctdeface-worker"}


def test_the_overlay_builds_and_follows_the_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our rendering equals that of `kubectl kustomize` where kubectl is installed."""
    objects = named(built(OVERLAY))
    tool = shutil.which("kubectl")
    if tool is not None:
        made = subprocess.run(
            [tool, "kustomize", OVERLAY], capture_output=True, text=True, check=True
        ).stdout
        assert named(yaml.safe_load_all(made)) == objects
    (tmp_path / "built.yaml").write_text(yaml.safe_dump_all(objects.values()), encoding="utf-8")
    validated(tmp_path / "built.yaml")
    assert objects.keys() == NAMED.keys()
    settings = objects["ConfigMap", "ctdeface"]["data"]
    assert settings["CTDEFACE_BROKER__URL"].startswith("amqps://")
    accepted(settings, monkeypatch)


def _spec(name: str) -> tuple[Document, Document]:
    (container,) = PODS[name]["containers"]
    return PODS[name], container


@pytest.mark.parametrize("name", PODS)
def test_each_pod_runs_a_command_with_settings_that_exist(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, settings, RabbitMQ user and mounted password are accepted by the program."""
    pod, container = _spec(name)
    refuse_unknown_command(container["args"])
    own = {one["name"]: one["value"] for one in container["env"]}
    accepted(SETTINGS | own, monkeypatch)
    assert own["CTDEFACE_BROKER__USER"] in {
        user["name"] for user in documents(DEPLOY / "rabbitmq/definitions.json")[0]["users"]
    }
    (place,) = [
        mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "password"
    ]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "password"]
    assert SETTINGS["CTDEFACE_BROKER__PASSWORD_FILE"] == f"{place}/{secret['items'][0]['path']}"


def test_workers_name_their_audit_chains_and_sign_them_once_the_comment_signs_are_gone(
    tmp_path: Path,
) -> None:
    """Chains have stable names, and only the service can read the mounted key."""
    text = (BASE / "worker.yaml").read_text(encoding="utf-8")
    file = tmp_path / "worker.yaml"
    file.write_text(
        re.sub(r"^( *)# ", r"\1", text, flags=re.MULTILINE).partition("\n")[2], encoding="utf-8"
    )
    validated(file)
    pod = named(documents(file))["Deployment", "worker"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own = {one["name"]: one["value"] for one in container["env"]}
    assert {"name": "CTDEFACE_AUDIT__WRITER", "value": "worker"} in _spec("worker")[1]["env"]
    (place,) = [
        mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "audit-key"
    ]
    (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "audit-key"]
    assert own["CTDEFACE_AUDIT__KEY_FILE"] == f"{place}/audit.key"
    assert secret["defaultMode"] & 0o007 == 0
    assert f"secret generic {secret['secretName']} --from-file deploy/secrets/audit.key" in PAGE


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_refers_to_is_there(name: str) -> None:
    """Images, ConfigMap, Secret keys, claims and mounted volumes exist."""
    pod, container = _spec(name)
    assert container["image"] in {"ctdeface-watcher", "ctdeface-worker"}
    assert [source["configMapRef"]["name"] for source in container["envFrom"]] == ["ctdeface"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    for volume in volumes.values():
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in NAMED
        if "secret" in volume:
            assert volume["secret"]["secretName"] == "ctdeface-queue"
            assert {item["key"] for item in volume["secret"]["items"]} <= SECRET_KEYS


@pytest.mark.parametrize("name", PODS)
def test_each_pod_may_do_as_little_as_possible(name: str) -> None:
    """Pods keep to `restricted`, with read-only root file systems and no cluster key."""
    pod, container = _spec(name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"memory"} <= container["resources"]["limits"].keys()


@pytest.mark.parametrize(("name", "port"), [("watcher", WATCH_PORT), ("worker", WORK_PORT)])
def test_probes_ports_and_selectors_agree(name: str, port: int) -> None:
    """Probes ask /healthz and /readyz at the port of the settings."""
    deployment, service = NAMED["Deployment", name], NAMED["Service", name]
    _, container = _spec(name)
    assert container["ports"] == [{"name": "metrics", "containerPort": port}]
    assert str(port) in {
        SETTINGS["CTDEFACE_METRICS__WATCH_PORT"],
        SETTINGS["CTDEFACE_METRICS__WORK_PORT"],
    }
    asked = {
        probe: container[probe]["httpGet"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert {probe: get["path"] for probe, get in asked.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert {get["port"] for get in asked.values()} == {"metrics"}
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels
    assert service["spec"]["selector"].items() <= labels
    assert service["spec"]["ports"][0]["port"] == port
    (scrapes,) = documents(DEPLOY / "prometheus/kubernetes.yml")
    (job,) = [job for job in scrapes["scrape_configs"] if job["job_name"] == f"ctdeface-{name}"]
    assert job["dns_sd_configs"][0]["names"] == [
        f"{name}.{KUSTOMIZATION['namespace']}.svc.cluster.local"
    ]
    assert job["dns_sd_configs"][0]["port"] == port


def test_workers_are_scaled_from_none_on_by_the_length_of_the_queue() -> None:
    """The scaler counts jobs in work, reads the URL from the Secret, and fixes no number."""
    scaled = NAMED["ScaledObject", "worker"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in NAMED
    assert "replicas" not in NAMED["Deployment", scaled["scaleTargetRef"]["name"]]["spec"]
    assert scaled["minReplicaCount"] == 0 < scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    assert (trigger["type"], trigger["metadata"]["queueName"], trigger["metadata"]["protocol"]) == (
        "rabbitmq",
        JOBS,
        "http",
    )
    (reference,) = NAMED["TriggerAuthentication", trigger["authenticationRef"]["name"]]["spec"][
        "secretTargetRef"
    ]
    assert reference["key"] in SECRET_KEYS


def test_a_worker_has_time_to_hand_its_case_back() -> None:
    """A pod outlives the grace period, and a budget stops one pod at a time."""
    pod, _ = _spec("worker")
    assert pod["terminationGracePeriodSeconds"] > float(SETTINGS["CTDEFACE_WORK__GRACE_PERIOD"])
    budget = NAMED["PodDisruptionBudget", "worker"]["spec"]
    assert budget["selector"] == NAMED["Deployment", "worker"]["spec"]["selector"]


def test_one_watcher_is_at_work_at_a_time() -> None:
    """The old one ends before a new one begins."""
    spec = NAMED["Deployment", "watcher"]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def _ports(rules: Any) -> Iterator[int]:
    for rule in rules:
        yield from (port["port"] for port in rule["ports"])


@pytest.mark.parametrize("folder", [BASE, OVERLAY], ids=["base", "overlay"])
def test_the_network_lets_through_what_is_needed_and_nothing_else(folder: Path) -> None:
    """In: the pages for Prometheus. Out: the queue and name resolution."""
    base = NAMED["NetworkPolicy", "ctdeface"]["spec"]
    (policy,) = documents(folder / "network.yaml")
    spec = base | policy["spec"]
    assert (spec["podSelector"], spec["policyTypes"]) == ({}, ["Ingress", "Egress"])
    assert set(_ports(spec["ingress"])) == {WATCH_PORT, WORK_PORT}
    assert set(_ports(spec["egress"])) <= {5671, 5672, 53}
    assert all(rule.get("to") for rule in spec["egress"])
