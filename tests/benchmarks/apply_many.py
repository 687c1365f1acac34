"""The process that ``bench_cluster`` measures: ``apply_many.py longshore|pool KUBECONFIG NAMESPACE COUNT``."""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def manifest(namespace: str, number: int) -> dict[str, Any]:
    """A Deployment of one pod."""
    name = f"model-{number:04}"
    container = {"name": "server", "image": "server:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pod}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def is_ready(deployment: dict[str, Any]) -> bool:
    """Whether the Deployment's own status says that it has rolled out."""
    status = deployment.get("status") or {}
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and bool(
        status.get("availableReplicas")
    )


def ours(kubeconfig: str, namespace: str, count: int) -> dict[str, float]:
    """With longshore."""
    from longshore.cluster import ClusterRuntime, Session

    sent: list[tuple[str, bool]] = []

    class Counting(Session):
        def _send(self, client: Any, method: str, path: str, query: Any, *rest: Any, **options: Any) -> Any:
            sent.append((method, bool(query and query.get("watch"))))
            return super()._send(client, method, path, query, *rest, **options)

    session = Counting.from_kubeconfig(kubeconfig)
    runtime = ClusterRuntime(session)
    manifests = [manifest(namespace, number) for number in range(count)]
    started = time.perf_counter()
    refs = runtime.apply(manifests)
    applied = time.perf_counter()
    writes = _writes(sent)
    for seen in runtime.observe(refs, deadline=time.monotonic() + 300):
        if len(seen) == count and all(map(is_ready, seen)):
            break
    ready = time.perf_counter()
    watches = sum(watch for _, watch in sent)
    sent.clear()
    runtime.apply(manifests)
    return {
        "apply_seconds": applied - started,
        "ready_seconds": ready - started,
        "again_seconds": time.perf_counter() - ready,
        "writes": writes / count,
        "writes_again": _writes(sent) / count,
        "watches": watches,
    }


def _writes(sent: list[tuple[str, bool]]) -> int:
    return sum(method != "GET" for method, _ in sent)


def pool(kubeconfig: str, namespace: str, count: int) -> dict[str, float]:
    """With a pool of threads, the Kubernetes client, and a list every second to wait."""
    from kubernetes import client, config

    config.load_kube_config(kubeconfig)
    configuration = client.Configuration.get_default_copy()
    configuration.connection_pool_maxsize = 10
    api = client.ApiClient(configuration)
    writes = 0

    def apply(number: int) -> None:
        nonlocal writes
        body = manifest(namespace, number)
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{body['metadata']['name']}"
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
            list(threads.map(apply, range(count)))
        return time.perf_counter() - started

    started = time.perf_counter()
    seconds, first = all_of(), writes
    custom = client.CustomObjectsApi(api)
    lists = 0
    while True:
        found = custom.list_namespaced_custom_object("apps", "v1", namespace, "deployments")["items"]
        lists += 1
        if len(found) == count and all(map(is_ready, found)):
            break
        time.sleep(1)
    ready = time.perf_counter() - started
    again = all_of()
    return {
        "apply_seconds": seconds,
        "ready_seconds": ready,
        "again_seconds": again,
        "writes": first / count,
        "writes_again": (writes - first) / count,
        "watches": lists,
    }


WAYS: dict[str, Callable[[str, str, int], dict[str, float]]] = {"longshore": ours, "pool": pool}

if __name__ == "__main__":
    way, path, space, number = sys.argv[1:]
    told = WAYS[way](path, space, int(number))
    # on Linux in kilobytes
    told["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps(told))
