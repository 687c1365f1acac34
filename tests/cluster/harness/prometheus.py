"""A real Prometheus on loopback, and what it scrapes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
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
        targets: File with what it scrapes.
    """

    def __init__(self, url: str, targets: Path) -> None:
        self.url, self._targets = url, targets

    def scrape(self, instance: str, port: int, path: str = "/metrics") -> None:
        """Scrape a port of loopback from now on.

        Args:
            instance: What the series' label of that name shall be.
            port: The port.
            path: Where the metrics are.
        """
        labels = {"instance": instance, "__metrics_path__": path}
        entry = {"targets": [f"127.0.0.1:{port}"], "labels": labels}
        entries = json.loads(self._targets.read_text())
        # as a whole: it looks at any moment
        draft = self._targets.with_suffix(".draft")
        draft.write_text(json.dumps([*entries, entry]))
        draft.rename(self._targets)

    def value(self, query: str) -> float:
        """The sum of what a query gives."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert answer["status"] == "success", answer
        return sum(float(one["value"][1]) for one in answer["data"]["result"])

    def wait(self, query: str, value: float) -> None:
        """Wait until what a query gives makes that much together."""
        eventually(lambda: self.value(query) == value, f"{query} to be {value:g}", 30)


@contextmanager
def prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes every half second what it is told to; it answers when this begins.

    Args:
        folder: Where its data goes.
    """
    port, targets = free_port(), folder / "targets.json"
    targets.write_text("[]")
    job = {"job_name": "pods", "file_sd_configs": [{"files": [str(targets)]}]}
    settings = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [job]}
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
            yield Prometheus(url, targets)
        finally:
            process.terminate()
            process.wait(30)
