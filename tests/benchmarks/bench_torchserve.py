"""TorchServe with longshore's handler beside its own base handler, and beside longshore's FastAPI face: one network.

A small convolutional network on pictures of 8 x 8 pixels, as TorchScript; one worker, a row in a request, wrk as the
load, on loopback. All that production needs is on in longshore: rows are checked and counted for drift. The servers
take turns. Then a version is brought up while clients connect anew for each request: through longshore, and as
TorchServe's documentation has it, by a call that waits.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import requests
from bench_serving import PORT, Payload, Server, load, running
from rows import Row, alone, compare

RUNS = int(os.environ.get("RUNS", "3"))
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS, PLAIN, FASTAPI = "longshore's handler", "TorchServe's base handler", "longshore, FastAPI"
ONE_THREAD = "base handler, one thread"
"""By itself PyTorch takes a thread for each processor; with a network as small as this they wait for each other.

longshore gives each worker one, unless ``OMP_NUM_THREADS`` says otherwise.
"""

HAND = "its API, by hand"
CLIENTS = (1, 16)
MOVES = 50


def prepare(folder: Path) -> tuple[Any, bytes]:
    """A model of two versions, and a request for one row."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_digits

    from longshore.packaging.images import encode_image
    from longshore.spec import ModelSource
    from longshore.training import train_torch

    found = load_digits()
    pixels = (found.images * (255 / 16)).astype(np.uint8)
    table = pd.DataFrame({"photo": [encode_image(one) for one in pixels], "digit": found.target})
    directory = folder / "digits"
    trained = train_torch(table, target="digit", epochs=3, save_as="torchscript")
    model = ModelSource(
        uri=str(directory), format="pytorch", name="digits", version="1", digest=trained.save(directory)
    )
    return model, json.dumps({"instances": [{"photo": pixels[0].tolist()}]}).encode()


def packages(folder: Path, model: Any, note: Callable[[str, str, float], None]) -> dict[str, Path]:
    """Stores with an archive each; what it took to make them."""
    from longshore.packaging import package_torchserve

    stores = {}
    for run in range(RUNS):
        began = time.monotonic()
        packaged = package_torchserve(model, str(folder / f"packages-{run}"), name="digits", version="1")
        note("packaging", OURS, time.monotonic() - began)
        stores[OURS] = Path(packaged.uri, "model-store")
        stores[PLAIN] = folder / f"plain-{run}"
        stores[PLAIN].mkdir()
        command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", "digits", "--version", "1"]
        command += ["--serialized-file", f"{model.uri}/model.pt", "--handler", str(HERE / "peers/torchserve_plain.py")]
        began = time.monotonic()
        subprocess.run([*command, "--export-path", str(stores[PLAIN])], check=True, capture_output=True)
        note("packaging", PLAIN, time.monotonic() - began)
    for who, store in stores.items():
        (archive,) = store.glob("*.mar")
        note("archive", who, archive.stat().st_size / 1024)
    return stores


@contextlib.contextmanager
def torchserve(store: Path, **settings: Any) -> Iterator[Any]:
    """A TorchServe with one worker, without tokens."""
    from longshore.validation.torchserve import await_worker, running_torchserve

    defaults = {"load_models": "all", "disable_token_authorization": True, "default_workers_per_model": 1}
    with running_torchserve(store, {**defaults, **settings}) as server:
        await_worker(server, "digits", "1")
        yield server


@contextlib.contextmanager
def threads(number: str | None) -> Iterator[None]:
    """What is started meanwhile is told to take so many threads; None tells it nothing."""
    before = os.environ.pop("OMP_NUM_THREADS", None)
    if number is not None:
        os.environ["OMP_NUM_THREADS"] = number
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def ask(url: str, body: bytes, folder: Path, who: str, note: Callable[[str, str, float], None]) -> None:
    """Load of several strengths."""
    base, _, path = url.partition("//")[2].partition("/")
    port, payload = int(base.rpartition(":")[2]), Payload(f"/{path}", body)
    # what runs for the first time takes its time
    load(payload, 16, folder, port)
    for clients in CLIENTS:
        rate, slowest = load(payload, clients, folder, port)
        note(f"rate {clients}", who, rate)
        note(f"p99 {clients}", who, slowest)


def slowest_while(url: str, body: bytes, do: Callable[[], None]) -> tuple[float, float]:
    """Seconds that it took, and the longest that a client waited who connects anew for each request."""
    ended, waited = threading.Event(), [0.0]

    def client() -> None:
        while not ended.is_set():
            began = time.monotonic()
            if (
                requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=120).status_code
                != 200
            ):
                raise RuntimeError("a request failed")
            waited.append(time.monotonic() - began)
            # so that they leave the processor some room
            ended.wait(0.1)

    # more than there are threads in TorchServe, which takes them in turn
    clients = [threading.Thread(target=client) for _ in range(8)]
    for one in clients:
        one.start()
    began = time.monotonic()
    try:
        do()
        seconds = time.monotonic() - began
    finally:
        ended.set()
        for one in clients:
            one.join()
    return seconds, max(waited)


def switch(folder: Path, model: Any, body: bytes, note: Callable[[str, str, float], None]) -> None:
    """Bring a version up, and move the default."""
    from longshore.packaging import package_torchserve
    from longshore.torchserve import ModelServer, deploy_version

    package = {
        version: package_torchserve(
            replace(model, version=version), str(folder / "versions"), name="digits", version=version
        )
        for version in ("1", "2")
    }
    second = Path(package["2"].uri, "model-store", "digits-2.mar").as_uri()
    for _ in range(RUNS):
        for who in (OURS, HAND):
            store = folder / "store"
            shutil.copytree(Path(package["1"].uri, "model-store"), store)
            with torchserve(store, enable_model_api=True) as running_server:
                server = ModelServer(management=running_server.management, inference=running_server.inference)

                def by_hand(management: str = server.management) -> None:
                    query = {"url": second, "synchronous": "true"}
                    requests.post(f"{management}/models", params=query, timeout=120).raise_for_status()
                    requests.put(f"{management}/models/digits/2/set-default", timeout=30).raise_for_status()

                def ours(server: ModelServer = server) -> None:
                    deploy_version(package["2"], server)

                seconds, slowest = slowest_while(
                    f"{server.inference}/predictions/digits", body, ours if who == OURS else by_hand
                )
                note("switch", who, seconds)
                note("slowest", who, slowest)
                if who == OURS:
                    began = time.monotonic()
                    for move in range(MOVES):
                        server.set_default("digits", "12"[move % 2])
                    note("move", who, (time.monotonic() - began) / MOVES * 1000)
            shutil.rmtree(store)


def measure() -> dict[str, dict[str, list[float]]]:
    """Values of all runs by figure and server."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(figure: str, who: str, value: float) -> None:
        found.setdefault(figure, {}).setdefault(who, []).append(value)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LONGSHORE_HOME"] = str(folder / "home")
        model, body = prepare(folder)
        stores = packages(folder, model, note)
        face = Server(
            [
                *[sys.executable, "-m", "longshore.serving", f"--model={model.uri}", "--name=digits"],
                *["--revision=digits-1", f"--port={PORT}"],
            ],
            {"small": Payload("/v1/models/digits:predict", body)},
        )
        for _ in range(RUNS):
            for who, store in {**stores, ONE_THREAD: stores[PLAIN]}.items():
                print(f"  {who}", file=sys.stderr, flush=True)
                with threads("1" if who == ONE_THREAD else None), torchserve(store) as server:
                    ask(f"{server.inference}/predictions/digits", body, folder, who, note)
            print(f"  {FASTAPI}", file=sys.stderr, flush=True)
            with running(face, folder / "log"):
                ask(f"http://127.0.0.1:{PORT}/v1/models/digits:predict", body, folder, FASTAPI, note)
        print("  versions", file=sys.stderr, flush=True)
        switch(folder, model, body, note)
    return found


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
    """The rows."""
    rows = []
    for clients in CLIENTS:
        name = f"TorchServe, one picture, {clients} client{'s' if clients > 1 else ''}"
        rate, p99 = found[f"rate {clients}"], found[f"p99 {clients}"]
        rows.append(compare(name, "req/s", rate[OURS], PLAIN, rate[PLAIN]))
        rows.append(compare(name, "req/s", rate[OURS], ONE_THREAD, rate[ONE_THREAD], ratio_at_least=0.8))
        rows.append(compare(f"{name}: p99", "ms", p99[OURS], PLAIN, p99[PLAIN]))
        rows.append(compare(f"{name}: p99", "ms", p99[OURS], ONE_THREAD, p99[ONE_THREAD]))
        name = f"the FastAPI face, the same, {clients} client{'s' if clients > 1 else ''}"
        rows.append(compare(name, "req/s", rate[FASTAPI], f"TorchServe, {OURS}", rate[OURS], ratio_at_least=1))
        rows.append(compare(f"{name}: p99", "ms", p99[FASTAPI], f"TorchServe, {OURS}", p99[OURS]))
    switched, slowest = found["switch"], found["slowest"]
    rows.append(compare("TorchServe, bring a version up and switch to it", "s", switched[OURS], HAND, switched[HAND]))
    rows.append(
        compare("longest wait of a client meanwhile", "s", slowest[OURS], HAND, slowest[HAND], ratio_at_most=0.5)
    )
    rows.append(alone("TorchServe, move the default", "ms", found["move"][OURS]))
    packaging, archive = found["packaging"], found["archive"]
    archiver = "torch-model-archiver"
    rows.append(compare("package for TorchServe", "s", packaging[OURS], archiver, packaging[PLAIN]))
    rows.append(compare("its archive", "kB", archive[OURS], archiver, archive[PLAIN]))
    return rows


def bench() -> list[Row]:
    """Measure with the environment of the frameworks, in a network namespace of its own."""
    for tool in ("wrk", "unshare", "java"):
        if shutil.which(tool) is None:
            raise SystemExit(f"this benchmark needs {tool}: apt-get install wrk util-linux openjdk-17-jre-headless")
    python = subprocess.run(
        [ROOT / "tools/peer.sh", "frameworks"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    subprocess.run([ROOT / "tools/layout.sh"], check=True)
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    inside = f"ip link set lo up && exec {python}/python {__file__}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build/layout"), "PATH": f"{python}:{os.environ['PATH']}"}
    done = subprocess.run([*apart, "sh", "-c", inside], check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    return table(json.loads(done.stdout))


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)
