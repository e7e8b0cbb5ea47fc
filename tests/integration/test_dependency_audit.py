"""The dependency audit distinguishes clean, vulnerable and unknown, with the real pip-audit."""

import json
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from deploy.dependency_audit import (
    CLEAN,
    IGNORED,
    NOT_ASKED,
    VULNERABLE,
    ask,
    ignored,
    main,
    verdict,
)
from deploy.software_bill import OURS, check_bill, installed, normal, write_bill

Told = Callable[[str], dict[str, Any] | None]


@contextmanager
def _service(told: Told) -> Iterator[str]:
    """Run a server of OSV's protocol on the loopback interface; None answers an error."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = told(normal(asked["package"]["name"]))
            body = json.dumps(content or {}).encode()
            self.send_response(200 if content is not None else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def _advisory(name: str, id_: str) -> dict[str, Any]:
    """One advisory in OSV's form that meets every version of a package."""
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    affected = [
        {
            "package": {"name": name, "ecosystem": "PyPI"},
            "ranges": ranges,
            "versions": [metadata.version(name)],
        }
    ]
    return {
        "vulns": [
            {
                "id": id_,
                "summary": "an invented flaw",
                "modified": "2026-01-01T00:00:00Z",
                "affected": affected,
            }
        ]
    }


def _verdict(url: str) -> tuple[int, str]:
    """Ask about a few distributions; the exit code, and what is shown."""
    few = {name: metadata.version(name) for name in ("urllib3", "py", "pip")}
    code, lines = verdict(ask(few, ["osv"], url), few, ignored())
    return code, "\n".join(lines)


def test_an_audit_of_everything_without_findings_is_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every distribution is queried; the exit code is 0; both files are written."""
    asked: list[str] = []

    def keep(name: str) -> dict[str, Any]:
        asked.append(name)
        return {}

    with _service(keep) as url:
        assert main(["--out", str(tmp_path), "--service", "osv", "--osv-url", url]) == CLEAN
    assert (
        f"clean: no known vulnerability in {len(installed()) - 1} distributions"
        in capsys.readouterr().out
    )
    assert set(asked) == set(installed()) - {OURS}
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["verdict"] == "clean"
    check_bill(tmp_path / "sbom.cdx.json", installed())


def test_a_vulnerable_dependency_fails_the_audit_and_is_named() -> None:
    """The package, its version and the advisory are shown."""
    with _service(
        lambda name: _advisory("urllib3", "OSV-2026-1") if name == "urllib3" else {}
    ) as url:
        code, shown = _verdict(url)
    assert code == VULNERABLE
    assert f"VULNERABLE: urllib3 {metadata.version('urllib3')}: OSV-2026-1" in shown


def test_an_ignored_advisory_is_told_with_its_reason_and_passes() -> None:
    """It does not fail the audit, and it is not kept quiet."""
    with _service(lambda name: _advisory("py", "PYSEC-2022-42969") if name == "py" else {}) as url:
        code, shown = _verdict(url)
    assert code == CLEAN
    assert f"ignored: PYSEC-2022-42969: {ignored()['PYSEC-2022-42969']}" in shown


def test_a_service_that_fails_is_never_clean() -> None:
    """The code is a third one, and the message says what was not asked about."""
    with _service(lambda _: None) as url:
        code, shown = _verdict(url)
    assert code == NOT_ASKED
    assert (
        "COULD NOT ASK about 3 of 3 distributions (pip, py, urllib3). This is not a clean result."
        in shown
    )
    assert "clean: no known" not in shown


def test_without_any_service_the_audit_says_so_and_writes_the_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 69 on a machine without a network, never 0."""
    assert (
        main(
            ["--out", str(tmp_path), "--service", "osv", "--osv-url", "http://127.0.0.1:1/v1/query"]
        )
        == NOT_ASKED
    )
    assert f"COULD NOT ASK about {len(installed()) - 1}" in capsys.readouterr().err
    assert (
        json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["verdict"]
        == "could not ask"
    )
    check_bill(tmp_path / "sbom.cdx.json", installed())


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bill of materials of this environment."""
    file = tmp_path_factory.mktemp("bill") / "sbom.cdx.json"
    write_bill(file)
    return file


def test_the_bill_of_materials_is_valid_and_names_every_installed_distribution(bill: Path) -> None:
    """Valid CycloneDX with each distribution's version, and with what the project itself needs."""
    content = json.loads(bill.read_text(encoding="utf-8"))
    assert {item["name"] for item in content["components"]} | {OURS} == set(installed())
    (ours,) = [item for item in content["dependencies"] if item["ref"] == OURS]
    assert {"torch", "pydicom", "pika", "pydantic", "mkdocs", "cyclonedx-python-lib"} <= set(
        ours["dependsOn"]
    )


@pytest.mark.parametrize(
    "damage",
    [('"library"', '"librarian"'), ('"name": "urllib3"', '"name": "urllib4"')],
    ids=["schema", "name"],
)
def test_a_bill_that_is_wrong_is_not_accepted(
    damage: tuple[str, str], bill: Path, tmp_path: Path
) -> None:
    """Neither one that breaks the schema nor one that misses a distribution."""
    file = tmp_path / "sbom.cdx.json"
    file.write_text(bill.read_text(encoding="utf-8").replace(*damage), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sbom\.cdx\.json"):
        check_bill(file, installed())


def test_every_ignored_advisory_has_a_reason_and_a_package_that_is_installed() -> None:
    """An exception ends with its package, and names the package of the advisory."""
    entries = tomllib.loads(IGNORED.read_text(encoding="utf-8"))["advisory"]
    assert not [
        entry
        for entry in entries
        if len(entry["reason"]) < 40 or entry["package"] not in installed()
    ]
