"""A real Prometheus on loopback, and what it scrapes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from harness.cluster import eventually
from harness.packages import find_program
from harness.system import free_port

__all__ = ["Prometheus", "prometheus"]


class Prometheus:
    """A Prometheus that runs.

    Args:
        url: Its address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def value(self, query: str) -> float:
        """The sum of what a query gives."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", answer
        return sum(float(one["value"][1]) for one in answer["data"]["result"])

    def wait(self, query: str, value: float) -> None:
        """Wait until what a query gives makes that much together."""
        eventually(lambda: self.value(query) == value, f"{query} to be {value:g}", 30)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, int], *, path: str = "/metrics") -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes ports of loopback every half second; it answers when this begins.

    Args:
        folder: Where its data goes.
        targets: Ports by what the series' label ``instance`` shall be.
        path: Where the metrics are.
    """
    port = free_port()
    jobs = [
        {
            "job_name": name,
            "metrics_path": path,
            "static_configs": [{"targets": [f"127.0.0.1:{number}"], "labels": {"instance": name}}],
        }
        for name, number in targets.items()
    ]
    settings = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": jobs}
    # JSON is YAML
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    command = [
        find_program("prometheus", "usr/bin/prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(lambda: requests.get(f"{url}/-/ready", timeout=2).ok, "Prometheus")
            yield Prometheus(url)
        finally:
            process.terminate()
            process.wait(30)
