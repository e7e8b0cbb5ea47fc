"""Asking a running service for its metrics, as Prometheus does."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.rabbitmq_node import free_ports

HOST = "127.0.0.1"
Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels."""


def free_port() -> int:
    """Return a port that nobody listens at."""
    return free_ports(1)[0]


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Ask for a page; return status and text, status 0 when nobody answers."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def scrape(port: int) -> dict[Series, float]:
    """Return the value of every series."""
    return parsed(get(port, "/metrics")[1])


def parsed(text: str) -> dict[Series, float]:
    """Return the value of every series of a page, read by the library's own parser."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(series: Mapping[Series, float], name: str, **labels: str) -> float:
    """Return one series' value."""
    return series[(name, frozenset(labels.items()))]


def by_label(series: Mapping[Series, float], name: str) -> dict[str, float]:
    """Return the values above 0 of a metric with one label."""
    return {
        next(iter(labels))[1]: found
        for (one, labels), found in series.items()
        if one == name and found
    }
