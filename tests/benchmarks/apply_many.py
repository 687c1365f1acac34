"""The process that is measured: ``apply_many.py longshore|pool deployments|models KUBECONFIG NAMESPACE COUNT``."""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """Objects to apply.

    Args:
        group: Group and version.
        plural: Their plural.
        manifest: One of them, by namespace and number.
        is_ready: Whether it is as it was asked for.
    """

    group: str
    plural: str
    manifest: Callable[[str, int], dict[str, Any]]
    is_ready: Callable[[dict[str, Any]], bool]


def deployment(namespace: str, number: int) -> dict[str, Any]:
    """A Deployment of one pod."""
    name = f"model-{number:04}"
    container = {"name": "server", "image": "server:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pod}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def has_rolled_out(deployment: dict[str, Any]) -> bool:
    """Whether the Deployment's own status says that it has rolled out."""
    status = deployment.get("status") or {}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and bool(
        status.get("availableReplicas")
    )


def model(namespace: str, number: int) -> dict[str, Any]:
    """A Model of Seldon Core 2, as longshore renders it."""
    from longshore.spec import ModelSource, Release, Service
    from longshore.targets.seldon_v2 import SeldonV2Target

    source = ModelSource(uri=f"s3://models/{number}", format="sklearn", name=f"model-{number:04}")
    release = Release(service=Service(name=f"model-{number:04}", namespace=namespace), model=source)
    return next(m for m in SeldonV2Target().render(release) if m["kind"] == "Model")


def is_available(model: dict[str, Any]) -> bool:
    """Whether a Model's status says that it can be asked."""
    conditions = (model.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


KINDS = {
    "deployments": Kind("apps/v1", "deployments", deployment, has_rolled_out),
    "models": Kind("mlops.seldon.io/v1alpha1", "models", model, is_available),
}


def ours(kind: Kind, kubeconfig: str, namespace: str, count: int) -> dict[str, float]:
    """With longshore."""
    from longshore.cluster import ClusterRuntime, Session

    sent: list[tuple[str, bool]] = []

    class Counting(Session):
        def _send(self, client: Any, method: str, path: str, query: Any, *rest: Any, **options: Any) -> Any:
            sent.append((method, bool(query and query.get("watch"))))
            return super()._send(client, method, path, query, *rest, **options)

    session = Counting.from_kubeconfig(kubeconfig)
    runtime = ClusterRuntime(session)
    begun = time.perf_counter()
    manifests = [kind.manifest(namespace, number) for number in range(count)]
    started = time.perf_counter()
    refs = runtime.apply(manifests)
    applied = time.perf_counter()
    writes = _writes(sent)
    for seen in runtime.observe(refs, deadline=time.monotonic() + 300):
        if len(seen) == count and all(map(kind.is_ready, seen)):
            break
    ready = time.perf_counter()
    watches, requests = sum(watch for _, watch in sent), len(sent)
    sent.clear()
    runtime.apply(manifests)
    return {
        "render_seconds": started - begun,
        "requests": requests / count,
        "apply_seconds": applied - started,
        "ready_seconds": ready - started,
        "again_seconds": time.perf_counter() - ready,
        "writes": writes / count,
        "writes_again": _writes(sent) / count,
        "watches": watches,
    }


def _writes(sent: list[tuple[str, bool]]) -> int:
    return sum(method != "GET" for method, _ in sent)


def pool(kind: Kind, kubeconfig: str, namespace: str, count: int) -> dict[str, float]:
    """With a pool of threads, the Kubernetes client, and a list every second to wait."""
    from kubernetes import client, config

    config.load_kube_config(kubeconfig)
    configuration = client.Configuration.get_default_copy()
    configuration.connection_pool_maxsize = 10
    api = client.ApiClient(configuration)
    writes = 0

    begun = time.perf_counter()
    manifests = [kind.manifest(namespace, number) for number in range(count)]
    rendered = time.perf_counter() - begun

    def apply(body: dict[str, Any]) -> None:
        nonlocal writes
        path = f"/apis/{kind.group}/namespaces/{namespace}/{kind.plural}/{body['metadata']['name']}"
        api.call_api(
            path,
            "PATCH",
            query_params=[("fieldManager", "pool"), ("force", "true")],
            header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
        )
        writes += 1

    def all_of() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(apply, manifests))
        return time.perf_counter() - started

    started = time.perf_counter()
    seconds, first = all_of(), writes
    custom = client.CustomObjectsApi(api)
    lists = 0
    while True:
        found = custom.list_namespaced_custom_object(*kind.group.split("/"), namespace, kind.plural)["items"]
        lists += 1
        if len(found) == count and all(map(kind.is_ready, found)):
            break
        time.sleep(1)
    ready = time.perf_counter() - started
    again = all_of()
    return {
        "render_seconds": rendered,
        "requests": (first + lists) / count,
        "apply_seconds": seconds,
        "ready_seconds": ready,
        "again_seconds": again,
        "writes": first / count,
        "writes_again": (writes - first) / count,
        "watches": lists,
    }


WAYS: dict[str, Callable[[Kind, str, str, int], dict[str, float]]] = {"longshore": ours, "pool": pool}

if __name__ == "__main__":
    way, what, path, space, number = sys.argv[1:]
    told = WAYS[way](KINDS[what], path, space, int(number))
    # on Linux in kilobytes
    told["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps(told))
