"""Audits every installed package for known vulnerabilities and writes a bill of materials.

The exit code is 0 if every package was checked and none is vulnerable, 1 if one is vulnerable, and
69 if a package could not be checked. pip-audit alone exits with 0 and "No known vulnerabilities
found" when its service knows none of the packages, so the answer for each package is counted here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.software_bill import OURS, installed, write_bill

ROOT = Path(__file__).resolve().parent.parent
IGNORED = Path(__file__).with_name("ignored_advisories.toml")
SERVICES = ("osv", "pypi")
CLEAN, VULNERABLE, NOT_ASKED = 0, 1, 69
_WAIT_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers of the vulnerability services.

    Attributes:
        asked: distributions that a service answered about.
        found: advisories by distribution.
        silent: services that gave no answer, with the reason.
    """

    asked: set[str] = field(default_factory=set)
    found: dict[str, set[str]] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill, ask the services, print the result and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="dependency_audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build/audit",
        metavar="FOLDER",
        help="where bill and answer go",
    )
    parser.add_argument(
        "--service", choices=SERVICES, action="append", help="whom to ask (default: both)"
    )
    parser.add_argument("--osv-url", metavar="URL", help="a mirror of the OSV service")
    given = parser.parse_args(arguments)
    write_bill(given.out / "sbom.cdx.json")
    versions = {
        name: found.version.partition("+")[0] for name, found in installed().items() if name != OURS
    }
    answer = ask(versions, given.service or SERVICES, given.osv_url)
    code, lines = verdict(answer, versions, ignored())
    result = {
        "verdict": {CLEAN: "clean", VULNERABLE: "vulnerable", NOT_ASKED: "could not ask"}[code],
        "lines": lines,
    }
    (given.out / "audit.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


def ask(
    versions: Mapping[str, str], services: Iterable[str], osv_url: str | None = None
) -> Answers:
    """Ask every service about all packages, because their knowledge differs."""
    answer = Answers()
    for service in services:
        _ask(
            service,
            versions,
            ["--osv-url", osv_url] if osv_url and service == "osv" else [],
            answer,
        )
    return answer


def ignored() -> Mapping[str, str]:
    """Return the advisories that do not apply here, with the reason, by id."""
    return {
        item["id"]: item["reason"]
        for item in tomllib.loads(IGNORED.read_text(encoding="utf-8"))["advisory"]
    }


def verdict(
    answer: Answers, versions: Mapping[str, str], passed_over: Mapping[str, str]
) -> tuple[int, list[str]]:
    """Return the exit code; a vulnerability outweighs a service that did not answer."""
    lines = [f"{service} could not be asked: {reason}" for service, reason in answer.silent.items()]
    bad = {name: ids - set(passed_over) for name, ids in sorted(answer.found.items())}
    for ids in answer.found.values():
        lines += [
            f"ignored: {each}: {passed_over[each]}" for each in sorted(ids & set(passed_over))
        ]
    lines += [
        f"VULNERABLE: {name} {versions[name]}: {', '.join(sorted(ids))}"
        for name, ids in bad.items()
        if ids
    ]
    unknown = sorted(set(versions) - answer.asked)
    if unknown:
        few = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        lines.append(
            f"COULD NOT ASK about {len(unknown)} of {len(versions)} distributions ({few}). "
            "This is not a clean result."
        )
    if any(bad.values()):
        return VULNERABLE, lines
    if unknown:
        return NOT_ASKED, lines
    return CLEAN, [*lines, f"clean: no known vulnerability in {len(versions)} distributions"]


def _ask(
    service: str, versions: Mapping[str, str], options: Sequence[str], answer: Answers
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wanted, found = Path(folder) / "requirements.txt", Path(folder) / "found.json"
        wanted.write_text(
            "".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8"
        )
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            wanted,
            "--no-deps",
            "--disable-pip",
        ]
        command += [
            "--progress-spinner",
            "off",
            "--timeout",
            str(_WAIT_SECONDS),
            "--cache-dir",
            Path(folder) / "cache",
        ]
        command += [
            "--vulnerability-service",
            service,
            "--format",
            "json",
            "--output",
            found,
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.is_file():
            answer.silent[service] = (done.stderr.strip().splitlines() or ["no message"])[
                -1
            ].rpartition("Caused by ")[2][:200]
            return
        for item in json.loads(found.read_text(encoding="utf-8"))["dependencies"]:
            if "skip_reason" not in item:
                answer.asked.add(item["name"])
                if item["vulns"]:
                    answer.found.setdefault(item["name"], set()).update(
                        each["id"] for each in item["vulns"]
                    )


if __name__ == "__main__":
    sys.exit(main())
