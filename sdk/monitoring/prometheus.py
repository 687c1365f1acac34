"""Asks a Prometheus server. Source: prometheus.io/docs, HTTP API (instant queries)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from longshore.errors import MonitorError

if TYPE_CHECKING:
    from longshore.client import Access

__all__ = ["Series", "by_label", "instant"]

_WORDS: Final = 500


@dataclass(frozen=True)
class Series:
    """A series at one moment.

    Args:
        labels: Its labels.
        value: Its value.
    """

    labels: Mapping[str, str]
    value: float


def instant(url: str, query: str, *, access: Access | None = None, timeout_seconds: float = 30) -> list[Series]:
    """The result of a query as it is now.

    Args:
        url: Base URL of the server, such as ``http://prometheus.monitoring:9090``. It is asked directly, whatever
            proxies the environment names.
        query: PromQL that gives a vector.
        access: Token and certificates.
        timeout_seconds: For the answer.

    Raises:
        MonitorError: If it cannot be asked or refuses; with its words.
    """
    import requests

    if urlsplit(url).scheme not in ("http", "https"):
        raise MonitorError(f"Prometheus cannot be asked at {url!r}: use an http or https URL")
    with requests.Session() as session:
        session.trust_env = False
        if access is not None:
            session.headers.update(access.headers())
            session.verify = str(access.ca_file) if access.ca_file is not None else True
            if access.cert_file is not None:
                session.cert = (str(access.cert_file), str(access.key_file or access.cert_file))
        address = f"{url.rstrip('/')}/api/v1/query"
        try:
            answer = session.post(address, data={"query": query}, timeout=timeout_seconds)
            content = answer.json()
        except requests.JSONDecodeError as error:
            raise MonitorError(
                f"{address} answered with status {answer.status_code} and no JSON: is a Prometheus there?"
            ) from error
        except requests.RequestException as error:
            raise MonitorError(f"Prometheus could not be asked at {address}: {error}. Check that it runs") from error
    return _series(content, address, query)


def by_label(series: list[Series], label: str) -> dict[str, float]:
    """Values by the value of one label; what is not a number counts as 0."""
    found: dict[str, float] = {}
    for one in series:
        value = one.value if math.isfinite(one.value) else 0.0
        found[one.labels.get(label, "")] = found.get(one.labels.get(label, ""), 0.0) + value
    return found


def _series(content: Any, address: str, query: str) -> list[Series]:
    if not isinstance(content, Mapping) or content.get("status") != "success":
        words = str(content.get("error", content) if isinstance(content, Mapping) else content)[:_WORDS]
        raise MonitorError(f"{address} refuses the query {query}: {words}")
    result = content["data"]
    if result.get("resultType") != "vector":
        raise MonitorError(f"{address} gives a {result.get('resultType')} for {query}: a vector is wanted")
    return [Series(one["metric"], float(one["value"][1])) for one in result["result"]]
