"""Requests that go on and on, from within a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from harness.cluster import Cluster, eventually
from harness.pods import delete_pod, start_pod

__all__ = ["Load"]

_ASK = """
import json, sys, time, urllib.request
url, body, headers = sys.argv[1], sys.argv[2].encode(), json.loads(sys.argv[3])
while True:
    try:
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=5) as reply:
            print(json.load(reply)["predictions"][0], flush=True)
    except Exception as error:
        print("failed:", time.strftime("%H:%M:%S"), repr(error), flush=True)
"""


class Load:
    """A pod that asks for predictions as long as it is entered, with a connection of its own for each request.

    Args:
        cluster: Where.
        namespace: Its namespace.
        url: URL of the V1 predict call.
        row: The row to ask for.
        headers: What is sent with it.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        url: str,
        row: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._command = ["python", "-c", _ASK, url, json.dumps({"instances": [row]}), json.dumps(headers or {})]
        self.lines: list[str] = []

    def read(self) -> list[str]:
        """What has come so far, from the first answer on: nodes hear of a new Service's pods in their own time."""
        # the last line may be half of one
        lines = self._cluster.log(self._namespace, "load").split("\n")[:-1]
        return [line for line in lines if not line.startswith("waiting")]

    @property
    def failures(self) -> list[str]:
        """What failed."""
        return [line for line in self.lines if line.startswith("failed")]

    @property
    def answers(self) -> set[float]:
        """All answers that came."""
        return {float(line) for line in self.lines if not line.startswith("failed")}

    def __enter__(self) -> Load:
        start_pod(self._cluster, self._namespace, "load", self._command)
        eventually(self.read, "an answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.lines = self.read()
        delete_pod(self._cluster, self._namespace, "load")
