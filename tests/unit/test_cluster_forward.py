"""Which pod a request to a service is forwarded to."""

import pytest

from longshore.cluster import forward
from longshore.errors import ClusterError


def pod(name, *, ready, **metadata):
    condition = {"type": "Ready", "status": str(ready)}
    return {
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"conditions": [condition]},
    }


class Session:
    """Has one service, and at each look the next of some lists of pods."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def request(self, _, path, *__, query=None):
        if query is None:
            return {"spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "iris"}}}
        assert query == {"labelSelector": "app=iris"}
        return {"items": self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]}


@pytest.fixture
def behind(monkeypatch):
    monkeypatch.setattr(forward, "_LOOK_SECONDS", 0)
    monkeypatch.setattr(forward, "_PATIENCE_SECONDS", 0.05)
    return lambda *looks: forward._pod_behind(Session(*looks), "prod", "iris", 80, "iris-1")


def test_a_pod_that_is_ready_and_stays(behind):
    leaving = pod("a", ready=True, deletionTimestamp="2026-01-01T00:00:00Z")
    assert behind([leaving, pod("b", ready=False), pod("c", ready=True)]) == ("c", 8080)


def test_a_pod_that_is_not_ready_for_a_moment_is_waited_for(behind):
    assert behind([pod("a", ready=False)], [pod("a", ready=False)], [pod("a", ready=True)]) == ("a", 8080)


@pytest.mark.parametrize("pods", [[], [pod("a", ready=False)]])
def test_where_none_is_ready_that_is_told(behind, pods):
    with pytest.raises(ClusterError, match="Service prod/iris: no pod behind it is ready"):
        behind(pods)
