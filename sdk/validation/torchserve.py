"""A TorchServe process on this machine, and the check that a package works in it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import requests

from longshore.errors import ConfigError, MissingExtra, ModelError
from longshore.packaging import read_card
from longshore.packaging.archive import inspect_archive, unpack_model
from longshore.packaging.torchserve import STORE, properties_text
from longshore.packaging.torchserve_process import last_error, last_warning, worker_died
from longshore.validation.packages import Checked

__all__ = ["TorchServe", "await_worker", "check_torchserve", "running_torchserve"]

_POLL_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 30.0
_WORDS_SECONDS: Final = 60.0
"""It stops reading what a worker says as soon as that has died, and may miss why: the next one says it again."""

_ADDRESSES: Final = ("inference_address", "management_address", "metrics_address")
_RPC_PORTS: Final = ("grpc_inference_port", "grpc_management_port")


@dataclass(frozen=True, kw_only=True)
class TorchServe:
    """A TorchServe that runs.

    Args:
        inference: Address for predictions.
        management: Address for management.
        metrics: Address for metrics.
        grpc_inference: Port for predictions over gRPC.
        grpc_management: Port for management over gRPC.
        folder: Where it runs; its logs are in ``logs``, its keys in ``key_file.json`` if it asks for tokens.
        pid: The process.
    """

    inference: str
    management: str
    metrics: str
    grpc_inference: int
    grpc_management: int
    folder: Path
    pid: int

    def reason(self) -> str | None:
        """The last error of its workers, in their own words."""
        return last_error(self.folder / "logs")

    def said(self) -> str:
        """That, or else the last line in which it warns or fails, or its last one of all."""
        lines: list[str] = []
        for path in (self.folder / "out", self.folder / "logs" / "ts_log.log"):
            with contextlib.suppress(OSError):
                lines += path.read_text("utf-8", "replace").splitlines()
        return self.reason() or last_warning(lines)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _need_torchserve() -> str:
    if importlib.util.find_spec("ts") is None:
        raise MissingExtra("TorchServe on this machine", "torchserve", "torchserve")
    java = os.environ.get("JAVA_HOME")
    found = str(Path(java, "bin", "java")) if java else shutil.which("java")
    if found is None or not Path(found).exists():
        raise ConfigError("TorchServe on this machine needs Java 17 or newer: install a runtime, or set JAVA_HOME")
    return f"TorchServe {importlib.metadata.version('torchserve')}"


@contextmanager
def running_torchserve(store: Path, properties: Mapping[str, Any] | None = None) -> Iterator[TorchServe]:
    """Run TorchServe on loopback, on ports that are free, as long as the block lasts.

    Args:
        store: Directory with the archives; TorchServe loads those that ``load_models`` names.
        properties: What stands in its ``config.properties`` besides addresses and store; tokens are asked for and the
            model API is off unless it says otherwise.

    Raises:
        ConfigError: If Java is not there.
        MissingExtra: If TorchServe is not installed.
        ModelError: If it does not start.
    """
    _need_torchserve()
    ports = _free_ports(len(_ADDRESSES) + len(_RPC_PORTS))
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        folder = Path(scratch)
        addresses = dict(zip((*_ADDRESSES, *_RPC_PORTS), ports, strict=True))
        settings = {name: f"http://127.0.0.1:{addresses[name]}" for name in _ADDRESSES}
        settings |= {name: str(addresses[name]) for name in _RPC_PORTS}
        (folder / "tmp").mkdir()
        text = properties_text({**settings, "model_store": str(store), **(properties or {})})
        (folder / "config.properties").write_text(text, encoding="ascii")
        process = _start(folder, store)
        server = TorchServe(
            inference=settings["inference_address"],
            management=settings["management_address"],
            metrics=settings["metrics_address"],
            grpc_inference=addresses["grpc_inference_port"],
            grpc_management=addresses["grpc_management_port"],
            folder=folder,
            pid=process.pid,
        )
        try:
            _await_ping(server, process)
            yield server
        finally:
            _stop(process)


def _start(folder: Path, store: Path) -> subprocess.Popen[bytes]:
    # all that it writes, its sockets to its workers and the file with its process among it, goes to this folder
    environment = {
        **os.environ,
        "TMPDIR": str(folder / "tmp"),
        "TEMP": str(folder / "tmp"),
        "LOG_LOCATION": str(folder / "logs"),
        "METRICS_LOCATION": str(folder / "logs"),
        # workers find the library where this process has it
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    command = [sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"]
    command += ["--model-store", str(store), "--ts-config", str(folder / "config.properties")]
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    # the wrapper leaves Java running when it is ended, so the whole group is told; Java ends its workers
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    deadline = time.monotonic() + _STOP_SECONDS
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_POLL_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _await_ping(server: TorchServe, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            # it answers as soon as it listens, whatever its models do
            requests.get(f"{server.inference}/ping", timeout=5)
            return
        if process.poll() is not None:
            raise ModelError(f"TorchServe did not start: {server.said()}")
        time.sleep(_POLL_SECONDS)
    raise ModelError(f"TorchServe did not answer within {seconds:g} s: {server.said()}")


def check_torchserve(package: Path, *, timeout_seconds: float = 120.0) -> Checked:
    """Load a package in a TorchServe on this machine, and ask it for the example rows.

    Args:
        package: The package, as :func:`longshore.packaging.torchserve.package_torchserve` makes it.
        timeout_seconds: How long its worker may take to load the model.

    Raises:
        ConfigError: If Java is not there.
        MissingExtra: If TorchServe is not installed.
        ModelError: If TorchServe cannot load it, or answers otherwise than the model itself.
    """
    card, said = read_card(package), _need_torchserve()
    (archive,) = (package / STORE).glob("*.mar")
    info = inspect_archive(archive)
    began = time.monotonic()
    settings = {"load_models": archive.name, "disable_token_authorization": True, "default_workers_per_model": 1}
    with running_torchserve(package / STORE, settings) as server:
        # while the worker starts, which takes longer
        expected = _own_answer(archive, card.example)
        await_worker(server, info.name, info.version, seconds=timeout_seconds)
        content = {"instances": [dict(row) for row in card.example]}
        answer = requests.post(
            f"{server.inference}/predictions/{info.name}/{info.version}", json=content, timeout=timeout_seconds
        )
        if answer.status_code != 200:
            raise ModelError(f"{said} answers the example rows of {package} with {answer.status_code}: {answer.text}")
        given = answer.json().get("predictions")
        seconds = time.monotonic() - began
    if given != expected:
        raise ModelError(f"{said} answers {given} to the example rows of {package}, and the model itself {expected}")
    return Checked(server=said, seconds=seconds, rows=len(card.example))


def await_worker(server: TorchServe, name: str, version: str, *, seconds: float = 120.0) -> None:
    """Wait until a worker has loaded a model.

    Args:
        server: The server.
        name: Name of the model.
        version: Its version.
        seconds: How long to wait.

    Raises:
        ModelError: If the worker dies, in its own words, or takes longer.
    """
    deadline, died = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        answer = requests.get(f"{server.management}/models/{name}/{version}", timeout=10)
        workers = answer.json()[0]["workers"] if answer.status_code == 200 else []
        if any(worker["status"] == "READY" for worker in workers):
            return
        # a worker that cannot load its model is started again and again, ever more slowly
        if not died and worker_died(server.folder / "logs"):
            died, deadline = True, min(deadline, time.monotonic() + _WORDS_SECONDS)
        if died and server.reason():
            break
        time.sleep(_POLL_SECONDS)
    if died:
        raise ModelError(f"TorchServe cannot load {name}, version {version}: {server.said()}")
    raise ModelError(f"TorchServe has not loaded {name}, version {version}, within {seconds:g} s: {server.said()}")


def _own_answer(archive: Path, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the model in an archive answers by itself."""
    from longshore.packaging import load_model, rows_to_frame

    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        loaded = load_model(unpack_model(archive, Path(scratch)))
        answers: list[Any] = loaded.predict(rows_to_frame(loaded.card.signature, rows), conformed=True).tolist()
        return answers
