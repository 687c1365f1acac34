"""The model server beside its peers: the same model and rows, one worker each, wrk as the load, on loopback.

The model is a logistic regression on iris, trained on an array, so that every server can give it one. Each peer runs in
an environment of its own, as its documentation has it started; the servers take turns, and nothing else runs meanwhile.
Here all that production needs is on: rows are checked against the signature, counted for drift, measured, have ids.
Some peers listen on all addresses, so all of it runs in a network namespace of its own.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
from rows import Row, alone, compare

RUNS = int(os.environ.get("RUNS", "3"))
WORKERS = 4
SECONDS = int(os.environ.get("SECONDS_EACH", "4"))
LONGSHORE = "longshore"
FACES = {"Flask": ("longshore, Flask", "plain Flask"), "Django": ("longshore, Django", "plain Django")}
"""This and a plain application, by framework."""

PORT = 8123
HERE = Path(__file__).parent
ROOT = HERE.parents[1]

_LARGE_ROWS = 13_000
"""Rows of four numbers with 17 digits that make a JSON of about a megabyte."""

_BINARY_ROWS = 32_768
"""Rows of four 64-bit floats that are a megabyte."""

_REQUEST = """
wrk.method = "POST"
for name, value in pairs({headers}) do wrk.headers[name] = value end
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
"""


@dataclass(frozen=True)
class Payload:
    """What is sent.

    Args:
        path: Where to.
        body: The body.
        headers: Its headers.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Server:
    """A server and how it is asked.

    Args:
        command: Starts it.
        env: Environment that it gets beside this one.
        payloads: A payload of each size.
    """

    command: Sequence[str]
    payloads: Mapping[str, Payload]
    env: Mapping[str, str] = field(default_factory=dict)


def values(rows: int) -> list[list[float]]:
    """Rows of iris with some noise, so that all digits are there."""
    from sklearn.datasets import load_iris

    flowers = load_iris().data
    chosen = flowers[np.arange(rows) % len(flowers)]
    noisy: list[list[float]] = (chosen + np.random.default_rng(0).random(chosen.shape) / 100).tolist()
    return noisy


def prepare(folder: Path) -> Path:
    """The model directory."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    from longshore.packaging import save_model
    from longshore.training.fit import train_sklearn

    iris = load_iris(as_frame=True)
    names = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    table = iris.data.set_axis(names, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    card = train_sklearn(table, target="species", estimator="sklearn.linear_model.LogisticRegression").card
    model = LogisticRegression(max_iter=1000).fit(table[names].to_numpy(), table["species"].to_numpy())
    directory = folder / "iris"
    save_model(directory, model, card)
    return directory


def _dump(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _tensor(rows: Sequence[Sequence[float]]) -> bytes:
    flat = [value for row in rows for value in row]
    return _dump({"inputs": [{"name": "x", "shape": [len(rows), 4], "datatype": "FP64", "data": flat}]})


def _binary(rows: Sequence[Sequence[float]]) -> Payload:
    raw = np.array(rows, "<f8").tobytes()
    tensor = {"name": "x", "shape": [len(rows), 4], "datatype": "FP64", "parameters": {"binary_data_size": len(raw)}}
    head = _dump({"inputs": [tensor]})
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Payload("/v2/models/iris/infer", head + raw, headers)


def servers(folder: Path, directory: Path) -> dict[str, Server]:
    """All of them."""
    model = str(directory / "model.joblib")
    small, large = values(1), values(_LARGE_ROWS)
    v1, v2 = "/v1/models/iris:predict", "/v2/models/iris/infer"
    both = {
        "small": Payload(v1, _dump({"instances": small})),
        "large": Payload(v2, _tensor(large)),
        "binary": _binary(values(_BINARY_ROWS)),
    }

    def rows(path: str, name: str) -> dict[str, Payload]:
        return {size: Payload(path, _dump({name: given})) for size, given in (("small", small), ("large", large))}

    ours = [sys.executable, "-m", "longshore.serving", f"--model={directory}", "--name=iris", "--revision=iris-1"]
    plain = [f"{Path(sys.executable).parent}/gunicorn", f"--bind=127.0.0.1:{PORT}", "--workers=1", "--threads=16"]
    peers = {"MODEL": model, "PYTHONPATH": str(HERE / "peers")}
    own = {"small": both["small"]}
    flow = _environment("mlflow")
    stored = folder / "mlflow"
    script = "import sys, joblib, mlflow.sklearn as m; m.save_model(joblib.load(sys.argv[1]), sys.argv[2])"
    subprocess.run([f"{flow}/python", "-c", script, model, str(stored)], check=True, capture_output=True)
    return {
        LONGSHORE: Server([*ours, f"--port={PORT}"], both),
        "longshore, Flask": Server([*ours, f"--port={PORT}", "--framework=flask"], own),
        "plain Flask": Server([*plain, "flask_iris:app"], own, peers),
        "longshore, Django": Server(
            [*ours, f"--port={PORT}", "--framework=django"], own, {"LONGSHORE_HOME": str(folder / "home")}
        ),
        "plain Django": Server([*plain, "django_iris:app"], own, peers),
        "KServe's server": Server([sys.executable, str(HERE / "peers/kserve_iris.py"), model, str(PORT)], both),
        "MLServer": Server(
            [f"{_environment('mlserver')}/mlserver", "start", str(_mlserver(folder, model))],
            {"small": Payload(v2, _tensor(small)), "large": both["large"]},
        ),
        "Seldon's microservice": Server(
            [
                f"{_environment('seldon')}/seldon-core-microservice",
                "SeldonIris",
                "--http-port",
                str(PORT),
                "--grpc-port",
                str(PORT + 1),
                "--metrics-port",
                str(PORT + 2),
                "--workers",
                "1",
            ],
            {
                size: Payload("/api/v1.0/predictions", _dump({"data": {"ndarray": given}}))
                for size, given in (("small", small), ("large", large))
            },
            {"PYTHONPATH": str(HERE / "peers"), "PREDICTIVE_UNIT_ID": "iris"},
        ),
        "BentoML": Server(
            [f"{_environment('bentoml')}/bentoml", "serve", "bentoml_iris:Iris", f"--port={PORT}", "--host=127.0.0.1"],
            rows("/predict", "rows"),
            {"MODEL": model, "PYTHONPATH": str(HERE / "peers"), "BENTOML_DO_NOT_TRACK": "True"},
        ),
        "MLflow's server": Server(
            [
                f"{flow}/mlflow",
                "models",
                "serve",
                "--model-uri",
                str(stored),
                "--port",
                str(PORT),
                "--host",
                "127.0.0.1",
                "--env-manager",
                "local",
                "--workers",
                "1",
            ],
            rows("/invocations", "inputs"),
            {"PATH": f"{flow}:{os.environ['PATH']}"},
        ),
    }


def _mlserver(folder: Path, model: str) -> Path:
    place = folder / "mlserver"
    place.mkdir()
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2}
    # without workers of its own for inference it is one process, and faster
    settings = {**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (place / "settings.json").write_text(json.dumps(settings))
    described = {"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": model}}
    (place / "model-settings.json").write_text(json.dumps(described))
    return place


def _environment(name: str) -> str:
    return subprocess.run([ROOT / "tools/peer.sh", name], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextlib.contextmanager
def running(server: Server, log: Path) -> Iterator[tuple[int, float]]:
    """Process id of a server that predicts, and the seconds that it took to."""
    payload = server.payloads["small"]
    url = f"http://127.0.0.1:{PORT}{payload.path}"
    began = time.monotonic()
    with log.open("wb") as output:
        # whatever it starts ends with it
        process = subprocess.Popen(
            [*["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"], *server.command],
            stdout=output,
            stderr=output,
            env={**os.environ, **server.env},
        )
    try:
        while True:
            with contextlib.suppress(requests.ConnectionError):
                if requests.post(url, data=payload.body, headers=dict(payload.headers), timeout=60).ok:
                    break
            if process.poll() is not None or time.monotonic() - began > 120:
                raise RuntimeError(f"{server.command[:3]} does not predict:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield process.pid, time.monotonic() - began
    finally:
        process.kill()
        process.wait()
        # what it has started ends with it, though not at once
        while _listens():
            time.sleep(0.02)


def _listens() -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", PORT)) == 0


def memory(process: int) -> float:
    """Megabytes of a server, by the process in whose namespace it is; what its processes share counts once."""
    space = Path(f"/proc/{process}/ns/pid_for_children").readlink()
    total = 0
    for status in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with contextlib.suppress(OSError):
            if (status.parent / "ns/pid").readlink() == space:
                total += int(re.search(r"^Pss:\s+(\d+)", status.read_text(), re.M)[1])  # type: ignore[index]
    return total / 1024


def settled_memory(process: int) -> float:
    """The same, once all workers are up: when it grows no more."""
    before, now = 0.0, memory(process)
    while now > 1.01 * before:
        time.sleep(3)
        before, now = now, memory(process)
    return now


def load(payload: Payload, clients: int, folder: Path, port: int = PORT) -> tuple[float, float]:
    """Requests in a second, and the 99th percentile of latency in milliseconds."""
    (folder / "body").write_bytes(payload.body)
    table = "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in payload.headers.items()) + "}"
    (folder / "request.lua").write_text(_REQUEST.format(headers=table, body=folder / "body"))
    command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={SECONDS}s", "--timeout=30s", "--latency"]
    url = f"http://127.0.0.1:{port}{payload.path}"
    said = subprocess.run(
        [*command, "-s", str(folder / "request.lua"), url], check=True, capture_output=True, text=True
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{url}:\n{said}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    return rate, float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def measure() -> dict[str, dict[str, list[float]]]:
    """Values of all runs by figure and server."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(figure: str, who: str, value: float) -> None:
        found.setdefault(figure, {}).setdefault(who, []).append(value)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        all_servers = servers(folder, prepare(folder))
        for _ in range(RUNS):
            for who, server in all_servers.items():
                print(f"  {who}", file=sys.stderr, flush=True)
                with running(server, folder / "log") as (process, seconds):
                    note("start", who, seconds)
                    note("memory", who, memory(process))
                    # what runs for the first time takes its time
                    load(server.payloads["small"], 16, folder)
                    for clients in (1, 16, 64):
                        rate, slowest = load(server.payloads["small"], clients, folder)
                        note(f"rate {clients}", who, rate)
                        note(f"p99 {clients}", who, slowest)
                    for size in ("large", "binary"):
                        if size in server.payloads:
                            note(size, who, load(server.payloads[size], 4, folder)[0])
                    note("memory at the end", who, memory(process))
            for who in (LONGSHORE, *FACES["Flask"], *FACES["Django"]):
                several = replace(all_servers[who], command=[*all_servers[who].command, f"--workers={WORKERS}"])
                with running(several, folder / "log") as (process, _):
                    note("memory of workers", who, settled_memory(process) / WORKERS)
    return found


def _faces(found: Mapping[str, Mapping[str, list[float]]]) -> list[Row]:
    """Each framework beside a plain application of it."""
    figures: dict[str, tuple[str, str, dict[str, float]]] = {
        "rate 1": ("one row, 1 client", "req/s", {"ratio_at_least": 1.5}),
        "p99 1": ("one row, 1 client: p99", "ms", {}),
        "rate 64": ("one row, 64 clients", "req/s", {"ratio_at_least": 1.5}),
        "p99 64": ("one row, 64 clients: p99", "ms", {}),
        "start": ("from start to the first prediction", "s", {}),
        "memory": ("memory of the server", "MB", {}),
        "memory of workers": (f"memory of each of {WORKERS} workers", "MB", {}),
    }
    alike = "memory of workers"
    rows = [alone(f"FastAPI, {figures[alike][0]}", figures[alike][1], found[alike][LONGSHORE])]
    for face in ("Flask", "Django"):
        ours, plain = FACES[face]
        for figure, (name, unit, goal) in figures.items():
            rows.append(compare(f"{face}, {name}", unit, found[figure][ours], plain, found[figure][plain], **goal))
    return rows


def bench() -> list[Row]:
    """Throughput, latency, start and memory, each beside the best of the peers."""
    for tool in ("wrk", "unshare"):
        if shutil.which(tool) is None:
            raise SystemExit(f"this benchmark needs {tool}: apt-get install wrk util-linux")
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    inside = f"ip link set lo up && exec {sys.executable} {__file__}"
    done = subprocess.run([*apart, "sh", "-c", inside], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/bench_serving.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = _faces(found)
    for figures in found.values():
        for server in [server for server in figures if server.startswith(("longshore, ", "plain "))]:
            del figures[server]
    goals: dict[str, tuple[str, str, dict[str, float]]] = {
        "rate 1": ("one row, 1 client", "req/s", {"ratio_at_least": 2}),
        "p99 1": ("one row, 1 client: p99", "ms", {}),
        "rate 16": ("one row, 16 clients", "req/s", {}),
        "p99 16": ("one row, 16 clients: p99", "ms", {}),
        "rate 64": ("one row, 64 clients", "req/s", {"ratio_at_least": 10}),
        "p99 64": ("one row, 64 clients: p99", "ms", {"ratio_at_most": 1 / 3}),
        "large": ("tensor of 1 MB as JSON, 4 clients", "req/s", {"ratio_at_least": 3}),
        "binary": ("tensor of 1 MB as binary data, 4 clients", "req/s", {"ratio_at_least": 3}),
        "start": ("from start to the first prediction", "s", {}),
        "memory": ("memory of the server", "MB", {}),
        "memory at the end": ("memory of the server after all this", "MB", {}),
    }
    for figure, (name, unit, goal) in goals.items():
        ours = found[figure].pop(LONGSHORE)
        more = unit == "req/s"
        ranked = sorted(found[figure].items(), key=lambda item: float(np.median(item[1])), reverse=more)
        if not ranked:
            rows.append(alone(name, unit, ours))
        for place, (peer, theirs) in enumerate(ranked):
            rows.append(compare(name, unit, ours, peer, theirs, **(goal if place == 0 else {})))
    return rows


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)
