"""Waiting on a real API server, through restarts, broken connections, forgotten versions and overload."""

import itertools
import threading
import time

import pytest
from harness.cluster import eventually
from harness.objects import config_map, deployment
from kubernetes.client import Configuration

from longshore.cluster import ClusterRuntime, Session
from longshore.errors import ClusterError
from longshore.targets.base import Ref, Selection


def ref(namespace: str, name: str = "one") -> Ref:
    return Ref("v1", "ConfigMap", name, namespace)


class Observer:
    """Reads what a runtime observes, in a thread, as an engine would."""

    def __init__(self, runtime, refs, *, also=(), seconds=60) -> None:
        self._seen = runtime.observe(refs, also=also, deadline=time.monotonic() + seconds)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.last: list | None = None
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            for seen in self._seen:
                self.last = seen
                if self._end.is_set():
                    break
        except Exception as error:
            self.error = error
        self._seen.close()

    def __enter__(self) -> "Observer":
        self._thread.start()
        eventually(lambda: self.last is not None or self.error, "the first observation")
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def sees(self, key: str, value: str, seconds: float = 20) -> None:
        """Wait until the first object's data is so."""
        eventually(lambda: self.error or self.last[0]["data"].get(key) == value, f"{key} = {value}", seconds)
        assert self.error is None


@pytest.fixture
def one(runtime, proxy, namespace):
    """An object that is watched."""
    runtime.apply([config_map(namespace)])
    with Observer(runtime, [ref(namespace)]) as observer:
        # listed is not watched yet
        eventually(lambda: proxy.watching, "the watch")
        yield observer


def change(cluster, namespace, value: str) -> None:
    cluster.apply(config_map(namespace, key=value), manager="longshore")


def test_a_change_is_seen(one, cluster, namespace):
    change(cluster, namespace, "new")
    one.sees("key", "new")
    cluster.request("DELETE", cluster.path(config_map(namespace)))
    eventually(lambda: one.last == [], "the end of the object")


def test_one_watch_for_all_objects_of_a_kind(runtime, proxy, cluster, namespace):
    manifests = [config_map(namespace, f"n{number}") for number in range(30)]
    refs = runtime.apply(manifests)
    cluster.apply(config_map(namespace, "foreign"))
    proxy.seen.clear()
    with Observer(runtime, refs) as observer:
        assert [manifest["metadata"]["name"] for manifest in observer.last] == [ref.name for ref in refs]
        cluster.apply({**manifests[7], "data": {"key": "new"}})
        eventually(lambda: observer.last[7]["data"] == {"key": "new"}, "the change")
    assert proxy.count("GET") == 1
    assert proxy.count("GET", watches=True) == 1


def test_a_broken_connection_loses_nothing(one, proxy, cluster, namespace):
    for number in range(3):
        eventually(proxy.cut, "a watch to cut")
        change(cluster, namespace, str(number))
        one.sees("key", str(number))
    lists = [seen for seen in proxy.seen if not seen.watches and "fieldSelector" in seen.query]
    assert len(lists) == 1


def test_a_version_that_the_server_has_forgotten(one, proxy, cluster, namespace):
    for number in range(50):
        change(cluster, namespace, f"before {number}")
    proxy.age()
    eventually(proxy.cut, "a watch to cut")
    change(cluster, namespace, "new")
    one.sees("key", "new")
    assert not proxy.old_watches


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "1"}), (429, {}), (500, {}), (503, {})])
def test_an_overloaded_server_is_asked_again(one, proxy, cluster, namespace, status, headers):
    proxy.fail(status, times=2, headers=headers, matches=lambda seen: seen.watches)
    eventually(proxy.cut, "a watch to cut")
    change(cluster, namespace, "new")
    one.sees("key", "new")
    _, first, second, third = (seen.at for seen in proxy.seen if seen.watches)
    if headers:
        assert second - first >= 1
        assert third - second >= 1


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_request_is_made_again_when_the_server_says_so(runtime, proxy, namespace, method):
    runtime.apply([config_map(namespace)])
    proxy.fail(429, headers={"Retry-After": "1"}, matches=lambda seen: seen.method == method)
    proxy.fail(503, matches=lambda seen: seen.method == method)
    started = time.monotonic()
    runtime.apply([config_map(namespace, key="new")])
    runtime.delete([ref(namespace)])
    assert time.monotonic() - started > 1
    assert proxy.count(method) >= 3


def test_a_refusal_that_stays_is_told(runtime, proxy, namespace):
    runtime.apply([config_map(namespace)])
    proxy.fail(500, times=1000, matches=lambda seen: seen.method == "PATCH")
    path = f"/api/v1/namespaces/{namespace}/configmaps/one"
    with pytest.raises(ClusterError, match="ConfigMap one could not be applied: trouble 500"):
        runtime.session.request("PATCH", path, "ConfigMap one", body=config_map(namespace), patience=0.5)


def test_a_restart_of_the_api_server(plane, cluster, namespace):
    session = Session.from_kubeconfig(cluster.kubeconfig)
    runtime = ClusterRuntime(session)
    runtime.apply([config_map(namespace)])
    with Observer(runtime, [ref(namespace)]) as observer:
        plane.stop_api_server()
        # asked while nobody answers
        applied = threading.Thread(target=runtime.apply, args=([config_map(namespace, key="during")],))
        applied.start()
        plane.start_api_server()
        applied.join(30)
        observer.sees("key", "during")
        change(cluster, namespace, "after")
        observer.sees("key", "after")
    session.close()


def test_credentials_that_are_rotated(proxy, cluster, namespace):
    """A token that is refused from one moment to the next, and a new one where the old one came from."""
    current = {"token": "one"}

    def load() -> Configuration:
        configuration = Configuration(host=proxy.url)
        configuration.api_key = {"authorization": f"Bearer {current['token']}"}
        return configuration

    proxy.token = "one"
    session = Session(load(), renew=load)
    runtime = ClusterRuntime(session)
    runtime.apply([config_map(namespace)])
    with Observer(runtime, [ref(namespace)]) as observer:
        proxy.token = current["token"] = "two"
        eventually(proxy.cut, "a watch to cut")
        change(cluster, namespace, "new")
        observer.sees("key", "new")
        runtime.apply([config_map(namespace, key="newer")])
        observer.sees("key", "newer")
    assert {seen.token for seen in proxy.seen} == {"one", "two"}
    session.close()


def test_credentials_that_are_revoked(proxy, namespace):
    configuration = Configuration(host=proxy.url)
    configuration.api_key = {"authorization": "Bearer one"}
    proxy.token = "two"
    session = Session(configuration, name="staging")
    with pytest.raises(ClusterError, match="staging does not accept these credentials") as refused:
        ClusterRuntime(session).get(ref(namespace))
    assert refused.value.reason == "Unauthorized"
    session.close()


def test_a_watch_that_is_forbidden_ends_the_wait_at_once(cluster, namespace):
    session = Session.from_kubeconfig(cluster.kubeconfig_of(namespace, "poor"))
    started = time.monotonic()
    with pytest.raises(ClusterError, match="poor may not list configmaps"):
        list(ClusterRuntime(session).observe([ref(namespace)], deadline=started + 60))
    assert time.monotonic() - started < 20
    session.close()


def test_nothing_changes_and_the_wait_ends_in_time(runtime, namespace):
    runtime.apply([config_map(namespace)])
    started = time.monotonic()
    seen = list(runtime.observe([ref(namespace)], deadline=started + 2.5))
    assert 2.4 < time.monotonic() - started < 20
    # now, and at every heartbeat
    assert 3 <= len(seen) <= 5
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("watch of")]
    assert threads == []


def test_pods_are_seen_beside_what_made_them(runtime, fleet, namespace):
    (web,) = runtime.apply([deployment(namespace)])
    pods = Selection("v1", "Pod", namespace, {"app": "web"})
    observed = runtime.observe([web], also=[pods], deadline=time.monotonic() + 30)
    for manifests in observed:
        kinds = [manifest["kind"] for manifest in manifests]
        if kinds == ["Deployment", "Pod"] and manifests[0]["status"].get("availableReplicas"):
            break
    else:
        pytest.fail("the pod was never available")
    observed.close()


def test_an_object_that_is_not_there_yet(runtime, namespace):
    with Observer(runtime, [ref(namespace)]) as observer:
        assert observer.last == []
        runtime.apply([config_map(namespace)])
        observer.sees("key", "value")


def test_many_lists_in_pages(runtime, cluster, namespace, monkeypatch):
    monkeypatch.setattr("longshore.cluster.watch._PAGE", 7)
    refs = runtime.apply([config_map(namespace, f"n{number:02}") for number in range(30)])
    (first,) = itertools.islice(runtime.observe(refs, deadline=time.monotonic() + 20), 1)
    assert [manifest["metadata"]["name"] for manifest in first] == [Ref.of(manifest).name for manifest in first]
    assert len(first) == 30
