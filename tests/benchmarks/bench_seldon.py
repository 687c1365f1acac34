"""A thousand Models of Seldon Core 2 on a real API server with Seldon's CRDs.

Models: rendered, applied, awaited and applied once more, by a process of its own; the peer is a pool of eight threads
that sends server-side applies of the same objects with the Kubernetes client. Their statuses are written by this
process, as fast as it can: how long a model takes to load is Seldon's and the model's.

Fleet: a thousand services, each an Experiment and a Model, with ``longshore.fleet``: from nothing until all of them
have their requests, once more without a change, and with another model for each.

Needs the CRDs in the folder of ``LONGSHORE_TEST_CRDS``; without it there are no rows.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rows import Row, alone, compare

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cluster"))

from harness.cluster import Cluster  # noqa: E402 - the folder is known only now
from harness.definitions import CRDS, install_definitions  # noqa: E402
from harness.keeper import Keeper  # noqa: E402
from harness.plane import Plane  # noqa: E402
from kubernetes.client.rest import ApiException  # noqa: E402

from longshore.cluster import ClusterRuntime, Session  # noqa: E402
from longshore.fleet import deploy_fleet  # noqa: E402
from longshore.spec import ModelSource, Release, Service  # noqa: E402
from longshore.targets.seldon_v2 import SeldonV2Target  # noqa: E402

MODELS = 1000
RUNS = 3
POOL = "pool of 8 threads"
_API = "/apis/mlops.seldon.io/v1alpha1"
_CONDITIONS = {
    "models": ("ModelReady", "Ready"),
    "experiments": ("ExperimentReady", "CandidatesReady", "MirrorReady", "Ready"),
}


class Statuses:
    """Says of every Model and Experiment in a namespace that all is well, as soon as it is seen."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        # by generation, as Seldon's operator writes
        self._said: dict[tuple[str, str], int] = {}

    def __enter__(self) -> "Statuses":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            while not self._end.wait(0.2):
                list(pool.map(self._say, list(self._new())))

    def _new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for plural in _CONDITIONS:
            found = self._cluster.request("GET", f"{_API}/namespaces/{self._namespace}/{plural}")["items"]
            for item in found:
                metadata = item["metadata"]
                if self._said.get((plural, metadata["name"])) != metadata["generation"]:
                    yield plural, item

    def _say(self, told: tuple[str, dict[str, Any]]) -> None:
        plural, item = told
        metadata = item["metadata"]
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        kinds = _CONDITIONS[plural]
        conditions = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds]
        # of its own each time, so that it is written in any case
        status = {"conditions": conditions, "annotations": {"generation": str(metadata["generation"])}}
        body = {"status": {**status, **({"availableReplicas": 1} if plural == "models" else {})}}
        path = f"{_API}/namespaces/{self._namespace}/{plural}/{metadata['name']}/status"
        # it may have been deleted meanwhile
        with contextlib.suppress(ApiException):
            self._cluster.request("PATCH", path, body, kind="application/merge-patch+json")
        self._said[plural, metadata["name"]] = metadata["generation"]


@contextlib.contextmanager
def plane() -> Iterator[Cluster]:
    """A control plane with Seldon's kinds."""
    keeper = Keeper()
    try:
        started = Plane(keeper)
        cluster = started.start()
        install_definitions(cluster, "seldon-v2")
        yield cluster
    finally:
        keeper.close()


def models(how: str) -> dict[str, float]:
    """Apply the Models in a process of its own, wait for all, and apply them again."""
    with plane() as cluster:
        namespace = cluster.namespace()
        with Statuses(cluster, namespace):
            where = [str(cluster.kubeconfig), namespace, str(MODELS)]
            command = [sys.executable, str(HERE / "apply_many.py"), how, "models", *where]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def fleet() -> dict[str, float]:
    """Deploy services, deploy them again, and replace all their models."""
    told: dict[str, float] = {}
    with plane() as cluster:
        namespace = cluster.namespace()
        sent: list[str] = []

        class Counting(Session):
            def _send(self, client: Any, method: str, *rest: Any, **options: Any) -> Any:
                sent.append(method)
                return super()._send(client, method, *rest, **options)

        session = Counting.from_kubeconfig(cluster.kubeconfig)
        with Statuses(cluster, namespace):
            for what, version in (("first", 1), ("again", 1), ("update", 2)):
                sent.clear()
                report = deploy_fleet(
                    [release(namespace, number, version) for number in range(MODELS)],
                    target=SeldonV2Target(),
                    runtime=ClusterRuntime(session),
                )
                if report.failed:
                    raise RuntimeError(f"{len(report.failed)} failed: {next(iter(report.failed.values()))}")
                told[what] = report.seconds
                told[f"{what} writes"] = sent.count("PATCH") / (2 * MODELS)
                told[f"{what} requests"] = len(sent) / MODELS
        session.close()
    return told


def release(namespace: str, number: int, version: int) -> Release:
    """A model behind a service of its own."""
    name = f"model-{number:04}"
    source = ModelSource(uri=f"s3://models/{number}/{version}", format="sklearn", name=name)
    return Release(service=Service(name=name, namespace=namespace), model=source)


def bench() -> list[Row]:
    """Measure."""
    if not os.environ.get(CRDS):
        print(f"bench_seldon: {CRDS} is not set: name the folder with Seldon's CRDs", file=sys.stderr)
        return []
    runs: dict[str, list[dict[str, float]]] = {"longshore": [], "pool": []}
    for _ in range(RUNS):
        for how, told in runs.items():
            told.append(models(how))
    fleets = [fleet() for _ in range(RUNS)]

    def row(name: str, unit: str, key: str, **goal: float) -> Row:
        mine, others = ([told[key] for told in runs[how]] for how in ("longshore", "pool"))
        return compare(name, unit, mine, POOL, others, **goal)

    def of_fleet(name: str, unit: str, key: str, **goal: float) -> Row:
        return alone(name, unit, [told[key] for told in fleets], **goal)

    rate = [[MODELS / told["apply_seconds"] for told in runs[how]] for how in ("longshore", "pool")]
    return [
        row(f"render {MODELS} Models", "s", "render_seconds"),
        compare(f"Models applied, {MODELS} at once", "per second", rate[0], POOL, rate[1], ratio_at_least=1),
        row("writes per changed Model", "", "writes", at_most=1),
        row("writes per unchanged Model", "", "writes_again", at_most=0),
        row("requests to the API server by Model, waiting included", "", "requests", at_most=1.1),
        row("watches to await the Models", "", "watches", at_most=1),
        row(f"apply {MODELS} unchanged Models again", "s", "again_seconds"),
        row("peak memory with the Models", "MB", "megabytes", at_most=200),
        of_fleet(f"{MODELS} services (an Experiment and a Model each), from nothing to requests", "s", "first"),
        of_fleet("writes per object of theirs", "", "first writes", at_most=1),
        of_fleet("the same again, unchanged", "s", "again"),
        of_fleet("writes per unchanged object", "", "again writes", at_most=0),
        of_fleet("another model for each, and the ones before ended", "s", "update"),
        of_fleet("writes per object, then", "", "update writes", at_most=1),
        of_fleet("requests by service, then", "", "update requests"),
    ]
