"""Real nodes: what the harness promises of them, seen through the API and from within pods."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster, eventually
from harness.images import longshore_image
from harness.traces import traces

HERE = Path(__file__).parent
IMAGE = longshore_image("python")
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}

SERVER = """\
import http.server, os, signal, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("", 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


@pytest.fixture
def space(nodes) -> Iterator[str]:
    """A fresh namespace on real nodes."""
    name = nodes.cluster.namespace("nodes")
    yield name
    nodes.cluster.delete_namespace(name)


def run(nodes, space, name, *command, image=IMAGE, cpu="10m"):
    """Start a pod that runs one command."""
    resources = {"requests": {**SMALL["requests"], "cpu": cpu}}
    container = {"name": "main", "image": image, "command": list(command), "resources": resources}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    nodes.cluster.request("POST", f"/api/v1/namespaces/{space}/pods", {"metadata": {"name": name}, "spec": spec})


def output(nodes, space, name):
    """What a pod wrote, once it has ended well."""

    def ended():
        phase = nodes.cluster.get(f"/api/v1/namespaces/{space}/pods/{name}")["status"]["phase"]
        return phase if phase in {"Succeeded", "Failed"} else None

    phase = eventually(ended, f"the end of pod {name}")
    log = nodes.cluster.kubectl("--namespace", space, "logs", name, command=nodes.plane.kubectl)
    assert phase == "Succeeded", log
    return log


def server(space, version):
    """A Deployment that loses no request when it is updated."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["python", "-c", SERVER],
        "env": [{"name": "VERSION", "value": version}],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        # requests still come until every node has taken the pod out of the Service
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "resources": SMALL,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": space},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def web(nodes, space) -> str:
    """The cluster address of a Service that answers ``v1``."""
    nodes.cluster.apply(server(space, "v1"))
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    metadata = {"name": "web", "namespace": space}
    service = nodes.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    address = service["spec"]["clusterIP"]
    eventually(lambda: fetch(address) == "v1", "the first answer of web")
    return address


def fetch(address):
    """The body of an answer, over a connection of its own."""
    with contextlib.closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            raise OSError(f"{answer.status} {body}")
        return body


class Load:
    """Sends requests, one after the other, as long as it is entered."""

    def __init__(self, address):
        self.answers, self.failures = [], []
        self._address, self._over = address, threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _send(self):
        while not self._over.wait(0.01):
            try:
                self.answers.append(fetch(self._address))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))


def test_a_pod_runs_and_its_logs_can_be_read(nodes, space):
    run(nodes, space, "hello", "python", "-c", "import os; print('uid', os.getuid())")
    assert output(nodes, space, "hello") == "uid 1000\n"


def test_the_model_server_is_in_its_image(nodes, space):
    code = "import longshore.serving.fastapi_app as app; print(app.__name__)"
    run(nodes, space, "serving", "python", "-c", code, image=longshore_image("fastapi"))
    assert output(nodes, space, "serving") == "longshore.serving.fastapi_app\n"


def test_a_pod_finds_a_service_by_name(nodes, space, web):
    url = f"http://web.{space}.svc.cluster.local/"
    code = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    run(nodes, space, "client", "python", "-c", code)
    assert output(nodes, space, "client") == "v1\n"


def test_an_update_under_load_loses_no_request(nodes, space, web):
    def gone():
        pods = nodes.cluster.get(f"/api/v1/namespaces/{space}/pods")["items"]
        return len(pods) == 1 and pods[0]["spec"]["containers"][0]["env"][0]["value"] == "v2"

    with Load(web) as load:
        eventually(lambda: len(load.answers) > 10, "answers before the update")
        nodes.cluster.apply(server(space, "v2"))
        eventually(lambda: "v2" in load.answers, "an answer of the new version")
        eventually(gone, "the end of the old pod")
    assert load.failures == []
    assert load.answers[0] == "v1"
    assert load.answers[-1] == "v2"


def test_an_image_that_is_not_there_shows_in_seconds(nodes, space):
    run(nodes, space, "unknown", "true", image="ghcr.io/longshore/nothing:1")

    def reason():
        statuses = nodes.cluster.get(f"/api/v1/namespaces/{space}/pods/unknown")["status"].get("containerStatuses", ())
        waiting = [status["state"].get("waiting", {}).get("reason") for status in statuses]
        return waiting[0] if waiting and waiting[0] in {"ErrImagePull", "ImagePullBackOff"} else None

    assert eventually(reason, "the refusal of the image", 10)


def test_a_namespace_that_is_deleted_leaves_its_place_to_the_next_one(nodes, space):
    (node,) = nodes.cluster.get("/api/v1/nodes")["items"]
    most = f"{600 * int(node['status']['allocatable']['cpu'])}m"
    former = nodes.cluster.namespace("former")
    run(nodes, former, "first", "sleep", "1000", cpu=most)
    path = f"/api/v1/namespaces/{former}/pods/first"
    eventually(lambda: nodes.cluster.get(path)["status"]["phase"] == "Running", "the first pod")
    nodes.cluster.delete_namespace(former)
    run(nodes, space, "second", "python", "-c", "print('here')", cpu=most)
    assert output(nodes, space, "second") == "here\n"


STARTER = """\
import json
from harness.keeper import Keeper
from harness.nodes import NodesCluster
from harness.pods import start_pod

keeper = Keeper()
cluster = NodesCluster(keeper, count=2).cluster
names = [node["metadata"]["name"] for node in cluster.get("/api/v1/nodes")["items"]]
space = cluster.namespace()
start_pod(cluster, space, "sleeper", ["sleep", "1000"])
print(json.dumps([keeper.slot, space, names, str(cluster.kubeconfig)]), flush=True)
input()
"""


def test_nothing_is_left_of_two_nodes_when_the_caller_is_killed(nodes, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        slot, space, names, kubeconfig = json.loads(starter.stdout.readline())
        assert len(names) == 2
        cluster = Cluster(Path(kubeconfig), tmp_path)
        path = f"/api/v1/namespaces/{space}/pods/sleeper"
        eventually(lambda: cluster.get(path)["status"]["phase"] == "Running", "a pod")
        found = "\n".join(traces(slot))
        # mounts are not among them: those of a node are in a namespace that ends with its processes
        for kind in ("process ", "/sys/fs/cgroup/", "/run/netns/"):
            assert kind in found
        starter.kill()
    eventually(lambda: not traces(slot), "the end of everything", 30)
    # the cluster of the other tests is as it was
    assert len(nodes.cluster.get("/api/v1/nodes")["items"]) == 1
