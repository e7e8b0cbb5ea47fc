"""Reference pages made from the code itself: commands, settings, metrics and errors, from their parsers, models, registries and classes."""

import argparse
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from ctdeface_shared import errors
from ctdeface_shared.broker.settlement import Quarantine, Reject, Retry, RetryRule, decide
from ctdeface_shared.commands.main import COMMANDS, command_module, overview, parser_of
from ctdeface_shared.metrics.dependencies import Dependencies, new_registry
from ctdeface_shared.settings.loading import Settings, keys, variable_of
from ctdeface_shared.settings.service import find_service
from ctdeface_watcher.metrics import WatcherMetrics
from ctdeface_worker.service.metrics import WorkerMetrics

_BECOMES = {
    Quarantine: "quarantined",
    Retry: "tried again after a pause, quarantined after `work.max_attempts`",
    Reject: "dead letter",
}


def pages() -> Mapping[str, str]:
    """Every generated page by its place in the site."""
    return {
        "reference/commands.md": commands(),
        "reference/settings.md": settings(),
        "reference/metrics.md": metrics(),
        "reference/errors.md": error_codes(),
    }


def commands() -> str:
    """Every command with what its `--help` shows."""
    parts = [
        "# Commands",
        "Made from the parsers of the program.",
        _block(overview().format_help()),
    ]
    for name, command in COMMANDS.items():
        parser = parser_of(name, command_module(name))
        parts += [
            f"## {name}",
            f"{command.summary.capitalize()}.",
            _block(parser.format_help()),
        ]
        for under, inner in _inner(parser):
            parts += [f"### {name} {under}", _block(inner.format_help())]
    return "\n\n".join(parts) + "\n"


def _inner(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from cast("Mapping[str, argparse.ArgumentParser]", action.choices).items()


def settings() -> str:
    """Every key with the values that are allowed."""
    schema = Settings.model_json_schema()
    rows = []
    for key in keys():
        field = _field(schema, key)
        rows.append(
            f"| `{key}` | `{variable_of(key)}` | {_allowed(schema, field)} | {_default(field)} | {field.get('description', '')} |"
        )
    head = "Made from the models that check them. What each is for stands in [settings](../configuration.md)."
    return "\n".join(
        [
            "# Settings",
            "",
            head,
            "",
            "| key | in the environment | allowed | default | |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _field(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    *above, name = key.split(".")
    level = schema
    for table in above:
        level = _resolved(schema, level["properties"][table])
    return cast("Mapping[str, Any]", level["properties"][name])


def _resolved(schema: Mapping[str, Any], field: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = field.get("$ref")
    return (
        cast("Mapping[str, Any]", schema["$defs"][reference.rpartition("/")[2]])
        if reference
        else field
    )


def _allowed(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    """Say in words what JSON Schema says about a value."""
    if "anyOf" in field:
        return " or ".join(
            "none" if each.get("type") == "null" else _allowed(schema, each)
            for each in field["anyOf"]
        )
    found = _resolved(schema, field)
    if "enum" in found:
        return ", ".join(f"`{value}`" for value in found["enum"])
    kind = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "`true`, `false`",
        "array": "list",
    }[found["type"]]
    kind = {"password": "secret", "path": "path", "file-path": "path"}.get(
        found.get("format", ""), kind
    )
    bounds = {
        "minimum": "≥",
        "exclusiveMinimum": ">",
        "maximum": "≤",
        "exclusiveMaximum": "<",
        "minLength": "letters ≥",
        "pattern": "like",
    }
    said = [f"{sign} `{found[name]}`" for name, sign in bounds.items() if name in found]
    return " ".join([kind, *said])


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    return (
        "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
    )


def metrics() -> str:
    """Every metric that watcher and worker register, with the buckets of histograms."""
    with TemporaryDirectory() as folder:
        site = find_service(None, Path(folder))
        registries = {"watcher": new_registry(), "worker": new_registry()}
        WatcherMetrics(registries["watcher"])
        WorkerMetrics(registries["worker"])
        for who, registry in registries.items():
            Dependencies(site, registry, counts_messages=who == "watcher").close()
        rows = sorted({row for who, registry in registries.items() for row in _rows(who, registry)})
    head = "Made from the registries of the program. How to read them stands in [metrics and health](../metrics.md)."
    return "\n".join(
        [
            "# Metrics",
            "",
            head,
            "",
            "| name | shown by | kind | meaning | buckets |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _rows(who: str, registry: CollectorRegistry) -> Iterator[str]:
    collectors = {
        name: each for each, names in registry._collector_to_names.items() for name in names
    }
    for family in registry.collect():
        if not family.name.startswith("ctdeface_"):
            continue
        shown = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        source = collectors.get(
            family.name
        )  # some make their values at each look and name none before
        bounds = (
            getattr(source, "_upper_bounds", []) if isinstance(source, MetricWrapperBase) else []
        )
        yield f"| `{shown}` | {who} | {family.type} | {family.documentation} | {', '.join(f'{bound:g}' for bound in bounds)} |"


def error_codes() -> str:
    """Every class of error: its code, what it means and how a job with it is settled."""
    import_module("ctdeface_worker.case.child_process")  # defines those about child processes
    rows = [
        f"| `{found.code}` | {' '.join((found.__doc__ or '').split())} | {_BECOMES[type(decide(found(), 1, RetryRule()))]} |"
        for found in sorted(
            {*_below(errors.PermanentError), *_below(errors.TransientError)},
            key=lambda each: each.code,
        )
    ]
    head = (
        "Made from the classes of the program. The code of an error is the name of its class, in reports, metrics and `replay --code`."
        " [What to do](../operations.md#what-to-do-with-a-refusal) about each."
    )
    return "\n".join(
        [
            "# Errors",
            "",
            head,
            "",
            "| code | means | what becomes of the job |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _below(kind: type[errors.CtDefaceError]) -> Iterator[type[errors.CtDefaceError]]:
    for found in kind.__subclasses__():
        yield found
        yield from _below(found)


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
