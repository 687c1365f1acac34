"""Seldon Core's own microservice as processes on loopback, in an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from harness.serving import wait_for
from harness.system import free_ports

__all__ = ["Microservice", "environment", "microservice", "run_client"]

ROOT = Path(__file__).parents[3]
VARIABLE = "LONGSHORE_TEST_SELDON"

# Seldon's microservice listens to the whole world
_LOOPBACK = """
import socket, sys
import grpc._server as rpc

class Loopback(socket.socket):
    def bind(self, address):
        super().bind(("127.0.0.1", address[1]) if address[0] in ("", "0.0.0.0") else address)

listen = rpc._Server.add_insecure_port
rpc._Server.add_insecure_port = lambda self, address: listen(self, address.replace("0.0.0.0", "127.0.0.1"))
socket.socket = Loopback
sys.argv[0] = "seldon-core-microservice"
from seldon_core.microservice import main
main()
"""


def environment() -> Path:
    """The folder of the environment's programs; skips the test where there is none."""
    place = os.environ.get(VARIABLE)
    if not place:
        pytest.skip(f"set {VARIABLE} to the bin folder of requirements/image-seldon.txt: $(tools/peer.sh image-seldon)")
    return Path(place)


@dataclass
class Microservice:
    """Seldon's microservice that runs.

    Args:
        process: Its first process.
        log: What it says.
        port: Where it speaks REST.
        grpc_port: Where it speaks gRPC.
        metrics_port: Where it shows metrics.
    """

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    grpc_port: int
    metrics_port: int

    @property
    def url(self) -> str:
        """Address for REST."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_url(self) -> str:
        """Address for gRPC."""
        return f"http://127.0.0.1:{self.grpc_port}"

    def get(self, path: str) -> requests.Response:
        """Ask with GET."""
        return requests.get(f"{self.url}{path}", timeout=30)

    def post(self, path: str, content: Any = None, **options: Any) -> requests.Response:
        """Ask with POST and JSON."""
        return requests.post(f"{self.url}{path}", json=content, timeout=30, **options)

    def counted(self, name: str, **labels: str) -> float:
        """Sum of a metric's values over all processes."""
        text = requests.get(f"http://127.0.0.1:{self.metrics_port}/prometheus", timeout=30).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def is_ready(self) -> bool:
        """Whether it answers over REST and gRPC."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.grpc_port), 5):
                return self.get("/health/status").ok
        except OSError:
            return False


@contextmanager
def microservice(
    log: Path,
    *options: str,
    run: str = "longshore.serving.seldon_app.Model",
    parameters: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Microservice]:
    """Run ``seldon-core-microservice``; all of its processes are ended.

    Args:
        log: Where what it says goes.
        options: Further arguments.
        run: The class that it runs.
        parameters: The node's parameters.
        variables: What Seldon's operator tells the container.
    """
    ports = free_ports(3)
    kinds = {bool: "BOOL", int: "INT", float: "DOUBLE"}
    given = [
        {"name": name, "value": str(value), "type": kinds.get(type(value), "STRING")}
        for name, value in (parameters or {}).items()
    ]
    names = ("--http-port", "--grpc-port", "--metrics-port")
    command = [str(environment() / "python"), "-W", "ignore", "-c", _LOOPBACK, run, f"--parameters={json.dumps(given)}"]
    command += [f"{name}={port}" for name, port in zip(names, ports, strict=True)]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=output,
            env=_variables(log.parent, variables or {}),
            # it does not end its children, so that all are ended together
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Microservice(process, log, *ports)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def serving(log: Path, *options: str, **more: Any) -> Iterator[Microservice]:
    """A microservice that answers; see :func:`microservice`."""
    with microservice(log, *options, **more) as one:
        wait_for(one.is_ready)
        yield one


def _variables(place: Path, told: Mapping[str, str]) -> dict[str, str]:
    library = place / "library"
    if not library.exists():
        # as it is installed in the image, without what it requires
        library.mkdir()
        (library / "longshore").symlink_to(ROOT / "sdk")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREDICT", "PROMETHEUS"))},
        "PYTHONPATH": str(library),
        "TMPDIR": str(place),
        "PREDICTIVE_UNIT_METRICS_ENDPOINT": "/prometheus",
        **told,
    }


def run_client(script: Path, *arguments: str) -> Any:
    """Run a script in the environment; gives the JSON that it prints."""
    command = [str(environment() / "python"), "-W", "ignore", str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
