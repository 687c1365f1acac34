"""InferenceServices on KServe's real controller, beside KServe's own SDK on the same objects.

Failures: each is deployed with longshore and with the SDK (create or patch, then ``KServeClient.wait_isvc_ready`` as it
is by default, with a time-out of a minute), as a first deploy and as an update of what serves. What the SDK says stands
behind its name; "Ready" is wrong in all of these.

First prediction: on a real node, from the first request to the API server to the first good answer in the cluster.

A thousand: applied and awaited on fake nodes. How long they take is up to KServe's controller.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from rows import Row, alone, compare

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cluster"))

from harness.cluster import Cluster, eventually  # noqa: E402 - the folder is known only now
from harness.fleet import FAIL, start_fleet  # noqa: E402
from harness.keeper import Keeper  # noqa: E402
from harness.kserve import KServe  # noqa: E402
from harness.nodes import NodesCluster  # noqa: E402
from harness.penguins import PENGUINS, ROW  # noqa: E402
from harness.plane import Plane  # noqa: E402

from longshore.client import predict  # noqa: E402
from longshore.cluster import ClusterRuntime, Session  # noqa: E402
from longshore.deployment import delete_service, deploy_model  # noqa: E402
from longshore.errors import LongshoreError  # noqa: E402
from longshore.packaging import save_model  # noqa: E402
from longshore.release import deploy  # noqa: E402
from longshore.spec import HealthState, KServeOptions, ModelSource, Release, Resources, Service  # noqa: E402
from longshore.storage import copy_tree  # noqa: E402
from longshore.targets.base import Selection  # noqa: E402
from longshore.targets.kserve import KServeTarget  # noqa: E402
from longshore.targets.kserve_health import INFERENCE_SERVICE_LABEL  # noqa: E402
from longshore.targets.kserve_runtimes import serving_runtime  # noqa: E402
from longshore.training.data import read_table  # noqa: E402
from longshore.training.fit import train_sklearn  # noqa: E402

SERVICES = 1000
RUNS = 3
TIMEOUT_SECONDS = 60
PATIENCE_SECONDS = 5
MODEL = ModelSource(uri="s3://models/iris/1", format="sklearn", name="iris", digest="sha256:" + "0" * 64)
NEXT = replace(MODEL, uri="s3://models/iris/2")
FAILURES: dict[str, dict[str, Any]] = {
    "image that is nowhere": {"annotations": {FAIL: "image"}},
    "corrupt model": {"annotations": {FAIL: "crash"}},
    "missing object": {"annotations": {FAIL: "init"}},
    "missing secret": {"annotations": {FAIL: "config"}},
    "missing runtime": {"kserve": KServeOptions(runtime="none")},
    "missing service account": {"service_account": "nobody"},
}

_SDK = """
import json, sys, threading, time
begun = time.monotonic()
from kserve import KServeClient
from kubernetes import client as kube
loaded = time.monotonic()
kserve = KServeClient(config_file=sys.argv[1])
api = kube.CustomObjectsApi()
where = ("serving.kserve.io", "v1beta1", sys.argv[2], "inferenceservices")
cases = json.load(open(sys.argv[3]))
def ready(name):
    conditions = api.get_namespaced_custom_object(*where, name).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
words = []
def run(case):
    name = case["wanted"]["metadata"]["name"]
    started = time.monotonic()
    if case["first"] is None:
        api.create_namespaced_custom_object(*where, case["wanted"])
    else:
        api.patch_namespaced_custom_object(*where, name, case["wanted"])
    try:
        kserve.wait_isvc_ready(name, sys.argv[2], timeout_seconds=int(sys.argv[4]))
        said = "Ready"
    except RuntimeError:
        said = "time-out"
    word = {"name": name, "seconds": time.monotonic() - started, "said": said, "before": loaded - begun}
    words.append(word)
for case in cases:
    if case["first"] is not None:
        api.create_namespaced_custom_object(*where, case["first"])
for case in cases:
    while case["first"] is not None and not ready(case["first"]["metadata"]["name"]):
        time.sleep(0.2)
threads = [threading.Thread(target=run, args=(case,)) for case in cases]
for thread in threads: thread.start()
for thread in threads: thread.join()
print()
print(json.dumps(words))
"""


@contextlib.contextmanager
def kserve_fleet() -> Iterator[Cluster]:
    """KServe with fake nodes, and longshore's runtime."""
    keeper = Keeper()
    try:
        plane = Plane(keeper)
        cluster = plane.start()
        start_fleet(keeper, plane, cluster)
        KServe(keeper, plane, cluster).start()
        cluster.apply(serving_runtime())
        yield cluster
    finally:
        keeper.close()


def service(namespace: str, name: str, **changes: Any) -> Service:
    """A small service."""
    return Service(name=name, namespace=namespace, resources=Resources(cpu="10m", memory="64Mi"), **changes)


def our_seconds(cluster: Cluster, *, updates: bool) -> dict[str, float]:
    """Seconds until each failure is told, restoring what served left out."""
    namespace = cluster.namespace()
    session = Session.from_kubeconfig(cluster.kubeconfig)
    runtime, seconds = ClusterRuntime(session), {}
    for number, (what, changes) in enumerate(FAILURES.items()):
        name = f"ours-{number}"
        if updates:
            release = Release(service=service(namespace, name), model=MODEL)
            deploy(release, target=KServeTarget(), runtime=runtime, timeout_seconds=TIMEOUT_SECONDS)
        told: list[float] = []
        release = Release(service=service(namespace, name, **changes), model=NEXT)
        started = time.monotonic()
        with contextlib.suppress(LongshoreError):
            deploy(
                release,
                target=_Telling(told),
                runtime=runtime,
                timeout_seconds=TIMEOUT_SECONDS,
                patience_seconds=PATIENCE_SECONDS,
            )
        stalled, failed = told
        # what may mend itself is given its patience
        seconds[what] = failed - started if failed else stalled - started + PATIENCE_SECONDS
    session.close()
    return seconds


class _Telling(KServeTarget):
    """Notes when a revision was first seen to be stalled, and when to have failed."""

    def __init__(self, told: list[float]) -> None:
        super().__init__()
        self._told = told
        self._told[:] = [0.0, 0.0]

    def health(self, release: Release, observed: Any) -> Any:
        health = super().health(release, observed)
        for index, state in enumerate((HealthState.STALLED, HealthState.FAILED)):
            if health.state is state and not self._told[index]:
                self._told[index] = time.monotonic()
        return health


def their_words(cluster: Cluster, *, updates: bool) -> dict[str, tuple[float, str]]:
    """Seconds until the SDK says something of each failure, and what."""
    namespace = cluster.namespace()
    cases = []
    for number, changes in enumerate(FAILURES.values()):
        name = f"theirs-{number}"

        def rendered(model: ModelSource, name: str = name, **changes: Any) -> Any:
            return KServeTarget().render(Release(service=service(namespace, name, **changes), model=model))[0]

        cases.append({"first": rendered(MODEL) if updates else None, "wanted": rendered(NEXT, **changes)})
    told = {word["name"]: word for word in sdk_words(cluster, namespace, cases, TIMEOUT_SECONDS)}
    words = [told[f"theirs-{number}"] for number in range(len(FAILURES))]
    return {what: (word["seconds"], word["said"]) for what, word in zip(FAILURES, words, strict=True)}


def sdk_words(
    cluster: Cluster, namespace: str, cases: list[dict[str, Any]], timeout_seconds: int
) -> list[dict[str, Any]]:
    """What the SDK says of each InferenceService, and when, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(cases, file)
        file.flush()
        command = [sys.executable, "-W", "ignore", "-c", _SDK, str(cluster.kubeconfig), namespace, file.name]
        done = subprocess.run([*command, str(timeout_seconds)], check=True, stdout=subprocess.PIPE, text=True)
    # it prints tables of its own before
    words: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return words


def detections() -> list[Row]:
    """Each failure, as a first deploy and as an update."""
    rows = []
    with kserve_fleet() as cluster:
        for updates in (False, True):
            ours, theirs = our_seconds(cluster, updates=updates), their_words(cluster, updates=updates)
            for what, seconds in ours.items():
                name = f"{what}, {'update' if updates else 'first deploy'}"
                their_seconds, said = theirs[what]
                rows.append(compare(name, "s", [seconds], f"KServe SDK: {said}", [their_seconds], at_most=10))
    return rows


def thousand() -> list[Row]:
    """Many services at once."""
    with kserve_fleet() as cluster:
        namespace = cluster.namespace()
        sent: list[str] = []

        class Counting(Session):
            def _send(self, client: Any, method: str, *rest: Any, **options: Any) -> Any:
                sent.append(method)
                return super()._send(client, method, *rest, **options)

        session = Counting.from_kubeconfig(cluster.kubeconfig)
        runtime, target = ClusterRuntime(session), KServeTarget()
        releases = {
            f"model-{number:04}": Release(service=service(namespace, f"model-{number:04}"), model=MODEL)
            for number in range(SERVICES)
        }
        started = time.perf_counter()
        refs = runtime.apply([target.render(release)[0] for release in releases.values()])
        applied = time.perf_counter() - started
        also = [Selection("apps/v1", "Deployment", namespace), Selection("v1", "Pod", namespace)]
        waiting = dict(releases)
        for seen in runtime.observe(refs, also=also, deadline=time.monotonic() + 900):
            groups: dict[str, list[Any]] = {}
            for manifest in seen:
                metadata = manifest["metadata"]
                own = (metadata.get("labels") or {}).get(INFERENCE_SERVICE_LABEL, metadata["name"])
                groups.setdefault(own, []).append(manifest)
            for name in [*waiting]:
                if target.health(waiting[name], groups.get(name, [])).state is HealthState.READY:
                    del waiting[name]
            if not waiting:
                break
        ready = time.perf_counter() - started
        requests = len(sent) / SERVICES
        sent.clear()
        # a namespace of its own: the events of all others would be read as well
        one = Release(service=service(cluster.namespace(), "single"), model=MODEL)
        deploy(one, target=target, runtime=runtime)
        single = len(sent)
        session.close()
    if waiting:
        raise RuntimeError(f"{len(waiting)} of {SERVICES} InferenceServices did not become ready")
    return [
        compare(f"apply {SERVICES} InferenceServices", "s", [applied], "pool of 8 threads", [pool_seconds()]),
        alone("until KServe's controller has made all ready", "s", [ready]),
        alone("requests to the API server by service, all at once", "", [requests], at_most=2),
        alone("requests to deploy one and await it", "", [single]),
    ]


def pool_seconds() -> float:
    """The same objects created by a plain pool of threads with the Kubernetes client, on a cluster of its own."""
    from kubernetes import client, config

    with kserve_fleet() as cluster:
        namespace = cluster.namespace()
        config.load_kube_config(str(cluster.kubeconfig))
        api = client.CustomObjectsApi()
        wanted = [
            KServeTarget().render(Release(service=service(namespace, f"model-{number:04}"), model=MODEL))[0]
            for number in range(SERVICES)
        ]

        def create(manifest: dict[str, Any]) -> None:
            api.create_namespaced_custom_object(
                "serving.kserve.io", "v1beta1", namespace, "inferenceservices", manifest
            )

        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(create, wanted))
        return time.perf_counter() - started


def first_predictions() -> list[Row]:
    """From the first request to an answer, on a real node and with longshore's runtime on both sides."""
    keeper = Keeper()
    try:
        nodes = NodesCluster(keeper)
        KServe(nodes.keeper, nodes.plane, nodes.cluster).start()
        with models(nodes) as (model, credentials):
            ours, theirs = [], []
            for _ in range(RUNS):
                ours.append(our_first(nodes.cluster, model, credentials))
                theirs.append(their_first(nodes.cluster, model, credentials))
    finally:
        keeper.close()
    return [compare("from nothing to the first good prediction", "s", ours, "KServe SDK", theirs)]


@contextlib.contextmanager
def models(nodes: NodesCluster) -> Iterator[tuple[ModelSource, dict[str, Any]]]:
    """A model in an S3 server that pods reach, and the Secret with its credentials."""
    import requests
    import s3fs

    address = f"{nodes.network.address}:9000"
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    nodes.spawn("s3", [sys.executable, "-m", "moto.server", "-H", nodes.network.address, "-p", "9000"])
    eventually(lambda: requests.get(f"http://{address}", timeout=2).status_code < 500, "S3")
    os.environ.update(keys, AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL=f"http://{address}")
    s3fs.S3FileSystem().mkdir("models")
    frame = read_table(str(PENGUINS))
    trained = train_sklearn(frame, target="body_mass_g", estimator="sklearn.linear_model.Ridge", task="regression")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        digest = save_model(directory, trained.model, trained.card)
        uri = copy_tree(directory, "s3://models/penguins")
    annotations = {
        "serving.kserve.io/s3-endpoint": address,
        "serving.kserve.io/s3-usehttps": "0",
        "serving.kserve.io/s3-region": "us-east-1",
    }
    secret = {"metadata": {"name": "store", "annotations": annotations}, "stringData": keys}
    yield ModelSource(uri=uri, format="sklearn", name="penguins", digest=digest), secret


def place(cluster: Cluster, credentials: dict[str, Any]) -> str:
    """A namespace with longshore's runtime and the credentials."""
    namespace = cluster.namespace()
    cluster.apply(serving_runtime(namespace))
    metadata = {**credentials["metadata"], "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", **credentials, "metadata": metadata})
    return namespace


def real_service(namespace: str) -> Service:
    """The service that both sides deploy."""
    resources, options = Resources(cpu="20m", memory="400Mi"), KServeOptions(storage_secret="store")
    return Service(name="penguins", namespace=namespace, resources=resources, kserve=options)


def our_first(cluster: Cluster, model: ModelSource, credentials: dict[str, Any]) -> float:
    """With longshore, its smoke test included."""
    namespace = place(cluster, credentials)
    session = Session.from_kubeconfig(cluster.kubeconfig)
    started = time.monotonic()
    deploy_model(model, real_service(namespace), platform="kserve", session=session)
    seconds = time.monotonic() - started
    delete_service("penguins", platform="kserve", namespace=namespace, session=session)
    session.close()
    return seconds


def their_first(cluster: Cluster, model: ModelSource, credentials: dict[str, Any]) -> float:
    """With the SDK: what a person would write, without longshore's probe; then the first request that is answered."""
    namespace = place(cluster, credentials)
    target, release = KServeTarget(), Release(service=real_service(namespace), model=model)
    (wanted,) = target.render(release)
    for field in ("readinessProbe", "lifecycle"):
        wanted["spec"]["predictor"]["model"].pop(field, None)
    started = time.monotonic()
    (said,) = sdk_words(cluster, namespace, [{"first": None, "wanted": wanted}], 120)
    session = Session.from_kubeconfig(cluster.kubeconfig)
    with ClusterRuntime(session).reach(target.endpoint(release, [])) as endpoint:
        eventually(lambda: predict(endpoint, [ROW]), "an answer")
    # without the start of the process and the imports
    seconds = time.monotonic() - started - said["before"]
    delete_service("penguins", platform="kserve", namespace=namespace, session=session)
    session.close()
    return seconds


def bench() -> list[Row]:
    """Measure."""
    return [*first_predictions(), *detections(), *thousand()]
