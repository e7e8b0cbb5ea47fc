"""Renders deploy/kubernetes like `kubectl kustomize`, with the features used there."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tests.architecture.deployed import Document, documents

Object: TypeAlias = dict[str, Any]
_USED = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches"}
_CLUSTER_WIDE = {"Namespace"}


def built(folder: Path) -> Sequence[Object]:
    """Put the objects of a folder together, as its kustomization.yaml says.

    Raises:
        AssertionError: it uses a feature that is not known here.
    """
    (rules,) = documents(folder / "kustomization.yaml")
    assert rules.keys() <= _USED
    objects: list[Object] = []
    for name in rules["resources"]:
        place = folder / name
        objects += (
            built(place)
            if place.is_dir()
            else copy.deepcopy([dict(each) for each in documents(place)])
        )
    for patch in rules.get("patches", ()):
        for change in documents(folder / patch["path"]):
            (target,) = [
                each
                for each in objects
                if (each["kind"], each["metadata"]["name"]) == _name(change)
            ]
            _merge(target, change)
    for each in objects:
        _place(each, rules.get("namespace"))
        for labels in rules.get("labels", ()):
            _label(each, labels)
        for image in rules.get("images", ()):
            _rename(each, image)
    return objects


def _name(document: Document) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def _merge(target: MutableMapping[str, Any], change: Mapping[str, Any]) -> None:
    """Merge tables; a list replaces the earlier one unless the schema names a merge key."""
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), MutableMapping):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _place(each: Object, namespace: str | None) -> None:
    if namespace is not None and each["kind"] not in _CLUSTER_WIDE:
        each["metadata"]["namespace"] = namespace


def _label(each: Object, rule: Mapping[str, Any]) -> None:
    assert rule["includeSelectors"] is rule["includeTemplates"] is True
    pairs = rule["pairs"]
    each["metadata"].setdefault("labels", {}).update(pairs)
    if "template" in each.get("spec", {}):
        each["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {}).update(pairs)
    for selector in _selectors(each):
        selector.update(pairs)


def _selectors(each: Object) -> Sequence[dict[str, str]]:
    spec = each.get("spec", {})
    if each["kind"] == "Service":
        return [spec["selector"]]
    return [
        spec[key]["matchLabels"]
        for key in ("selector", "podSelector")
        if "matchLabels" in spec.get(key, {})
    ]


def _rename(each: Object, rule: Mapping[str, str]) -> None:
    for container in each.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
        if container["image"] == rule["name"]:
            container["image"] = f"{rule['newName']}:{rule['newTag']}"
