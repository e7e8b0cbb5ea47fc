"""Writes a CycloneDX bill of materials: each package, version, license and requirement.

`pip-audit --format cyclonedx-json` leaves out packages that its service does not know, which is all
of them without a network. So this bill is made from the installed distributions, and read back
before it counts.
"""

import json
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement

OURS = "ctdeface"
_LONGEST_LICENSE_NAME = 120  # letters; some distributions put the whole text there


def normal(name: str) -> str:
    """Return the normalized name of package indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> Mapping[str, metadata.Distribution]:
    """Return every installed distribution by name."""
    return {normal(found.name): found for found in metadata.distributions()}


def write_bill(file: Path) -> None:
    """Write the bill of everything that is installed.

    Raises:
        ValueError: what was written is not valid CycloneDX 1.6, or does not name everything that is
            installed.
    """
    there = installed()
    text = JsonV1Dot6(_bill(there)).output_as_string(indent=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", encoding="utf-8")
    check_bill(file, there)


def check_bill(file: Path, there: Mapping[str, metadata.Distribution]) -> None:
    """Check that a bill is valid and names exactly what is installed.

    Raises:
        ValueError: it is not, or does not.
    """
    text = file.read_text(encoding="utf-8")
    if complaint := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(
            f"{file.name} is not valid CycloneDX 1.6: {str(complaint).splitlines()[0]}"
        )
    content = json.loads(text)
    named = {
        (item["name"], item["version"])
        for item in [content["metadata"]["component"], *content.get("components", [])]
    }
    held = {(name, found.version) for name, found in there.items()}
    if named != held:
        raise ValueError(f"{file.name} does not name what is installed: {sorted(named ^ held)}")


def _bill(there: Mapping[str, metadata.Distribution]) -> Bom:
    components = {name: _component(name, found) for name, found in there.items()}
    bill = Bom(components=[component for name, component in components.items() if name != OURS])
    bill.metadata.component = components[OURS]
    for name, found in there.items():
        extras = found.metadata.get_all("Provides-Extra") or [] if name == OURS else []
        needs = _needed(found.requires or [], extras)
        bill.register_dependency(
            components[name], [components[need] for need in sorted(needs) if need in components]
        )
    return bill


def _component(name: str, found: metadata.Distribution) -> Component:
    stated = next(
        (
            text
            for key in ("License-Expression", "License")
            for text in found.metadata.get_all(key) or []
        ),
        "",
    )
    short = stated if "\n" not in stated and len(stated) < _LONGEST_LICENSE_NAME else ""
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.APPLICATION if name == OURS else ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=found.version),
        licenses=[LicenseFactory().make_from_string(short)] if short else [],
    )


def _needed(lines: Iterable[str], extras: Iterable[str]) -> set[str]:
    wanted = [Requirement(line) for line in lines]
    return {
        normal(each.name)
        for each in wanted
        if each.marker is None
        or any(each.marker.evaluate({"extra": extra}) for extra in ["", *extras])
    }
