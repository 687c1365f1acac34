"""Waiting for and applying objects on a real API server, against the ways that are usual.

Ready detection: an InferenceService's status is written, and the clock runs until the waiting side knows. The peer is
KServe's SDK, ``KServeClient.wait_isvc_ready`` with its default polling, in an environment of its own (``peer.sh``).

Applying: a thousand Deployments on fake nodes, by a process of its own; the peer is a pool of eight threads that sends
server-side applies with the Kubernetes client, as anybody would write it.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rows import Row, compare

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cluster"))

from harness.cluster import Cluster  # noqa: E402 - the folder is known only now
from harness.fleet import start_fleet  # noqa: E402
from harness.keeper import Keeper  # noqa: E402
from harness.plane import Plane  # noqa: E402

from longshore.cluster import ClusterRuntime, Session  # noqa: E402
from longshore.targets.base import Ref  # noqa: E402

OBJECTS = 1000
DETECTIONS = 200
PEER_DETECTIONS = 10
RUNS = 3
GROUP, VERSION = "serving.kserve.io", "v1beta1"
SDK, POOL = "KServe SDK, polling", "pool of 8 threads"

_WAIT = """
import sys, threading, time
from kserve import KServeClient
client = KServeClient(config_file=sys.argv[1])
def wait(name):
    client.wait_isvc_ready(name, sys.argv[2], timeout_seconds=120)
    sys.stdout.write(f"ready {name} {time.time()}\\n")
print("waiting", flush=True)
for name in sys.argv[3:]:
    threading.Thread(target=wait, args=(name,)).start()
"""


@contextlib.contextmanager
def fleet() -> Iterator[Cluster]:
    """A control plane with fake nodes."""
    keeper = Keeper()
    try:
        plane = Plane(keeper)
        cluster = plane.start()
        start_fleet(keeper, plane, cluster)
        yield cluster
    finally:
        keeper.close()


def services(cluster: Cluster, names: list[str]) -> str:
    """Make InferenceServices that no controller sees to; returns their namespace."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": VERSION, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    names_ = {"kind": "InferenceService", "plural": "inferenceservices", "singular": "inferenceservice"}
    cluster.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"inferenceservices.{GROUP}"},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names_, "versions": [version]},
        }
    )
    namespace = cluster.namespace()
    for name in names:
        cluster.apply(service(namespace, name))
    return namespace


def service(namespace: str, name: str) -> dict[str, Any]:
    """An InferenceService."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "longshore"}}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "InferenceService", "metadata": metadata, "spec": {}}


def make_ready(cluster: Cluster, namespace: str, name: str) -> None:
    """Write the status, as the controller does."""
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 1}}
    path = f"{cluster.path(service(namespace, name))}/status"
    cluster.request("PATCH", path, status, kind="application/merge-patch+json")


def our_detections(cluster: Cluster) -> list[float]:
    """Seconds from before the write of a status until the observer has it, one after the other."""
    names = [f"ours-{number}" for number in range(DETECTIONS)]
    namespace = services(cluster, names)
    session = Session.from_kubeconfig(cluster.kubeconfig)
    refs = [Ref(f"{GROUP}/{VERSION}", "InferenceService", name, namespace) for name in names]
    seconds = []
    observed = ClusterRuntime(session).observe(refs, deadline=time.monotonic() + 300)
    next(observed)
    for number, name in enumerate(names):
        started = time.perf_counter()
        writer = threading.Thread(target=make_ready, args=(cluster, namespace, name))
        writer.start()
        for seen in observed:
            if seen[number].get("status"):
                seconds.append(time.perf_counter() - started)
                break
        writer.join()
    observed.close()
    session.close()
    return seconds


def their_detections(cluster: Cluster) -> list[float]:
    """The same with KServe's SDK, ten services at a time, made ready at moments spread over its interval."""
    names = [f"theirs-{number}" for number in range(PEER_DETECTIONS)]
    namespace = services(cluster, names)
    command = [sys.executable, "-W", "ignore", "-c", _WAIT, str(cluster.kubeconfig), namespace, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline().strip() == "waiting"
        written = {}
        for name in names:
            time.sleep(1)
            written[name] = time.time()
            make_ready(cluster, namespace, name)
        told = dict(line.split()[1:] for line in waiting.stdout if line.startswith("ready "))
    return [float(told[name]) - written[name] for name in names]


def worker(cluster: Cluster, how: str) -> dict[str, float]:
    """Apply the objects in a process of its own, wait for all, and apply them again."""
    namespace = cluster.namespace()
    where = [str(cluster.kubeconfig), namespace, str(OBJECTS)]
    command = [sys.executable, str(HERE / "apply_many.py"), how, "deployments", *where]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def percentile(values: list[float], share: float) -> float:
    """A percentile (nearest rank)."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]


def bench() -> list[Row]:
    """Measure."""
    with fleet() as cluster:
        ours, theirs = our_detections(cluster), their_detections(cluster)
    runs: dict[str, list[dict[str, float]]] = {"longshore": [], "pool": []}
    for _ in range(RUNS):
        for how, told in runs.items():
            # a fresh cluster each time: what is left of the last run would slow the next one down
            with fleet() as cluster:
                told.append(worker(cluster, how))

    def figures(key: str) -> tuple[list[float], list[float]]:
        return [told[key] for told in runs["longshore"]], [told[key] for told in runs["pool"]]

    def row(name: str, unit: str, key: str, **goal: float) -> Row:
        mine, others = figures(key)
        return compare(name, unit, mine, POOL, others, **goal)

    return [
        compare("ready detection, p50", "s", [statistics.median(ours)], SDK, [statistics.median(theirs)]),
        compare(
            f"ready detection, p99 of {DETECTIONS}",
            "s",
            [percentile(ours, 0.99)],
            SDK,
            [percentile(theirs, 0.99)],
            at_most=0.2,
        ),
        row(f"apply {OBJECTS} Deployments", "s", "apply_seconds", at_most=OBJECTS / 250),
        row("writes per changed object", "", "writes", at_most=1),
        row("writes per unchanged object", "", "writes_again", at_most=0),
        row(f"apply {OBJECTS} unchanged again", "s", "again_seconds"),
        row("watches to await them", "", "watches", at_most=1),
        row("until all are ready", "s", "ready_seconds"),
        row("peak memory", "MB", "megabytes", at_most=200),
    ]
