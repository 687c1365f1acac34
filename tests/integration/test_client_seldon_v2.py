"""The client before a mesh of Seldon Core 2: services are told by a header, and a client can keep to a revision."""

import json
import socket
import threading
from dataclasses import dataclass, field, replace
from itertools import cycle

import pytest
import uvicorn

from longshore.client import Client, predict, probe
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.spec import Endpoint

ROWS = [{"x": 1.0}, {"x": 2.0}]


@dataclass
class Mesh:
    """Routes as Seldon's scheduler has Envoy make them: an exact header, and either no route or one that is known.

    A route of one candidate alone knows no way back to it.
    """

    routes: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    turns: dict[str, object] = field(default_factory=dict)

    async def __call__(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        name = headers["seldon-model"]
        # the agent puts another name in its place, up to a dot
        assert "." not in scope["path"].split("/")[3]
        candidates, route = self.routes.get(name, []), headers.get("x-seldon-route")
        if route is not None:
            model = next((one for one in candidates if len(candidates) > 1 and f":{one}_1:" == route), None)
        else:
            turns = self.turns.setdefault(name, cycle(candidates or [None]))
            model = next(turns)
        self.asked.append((name, route or ""))
        if model is None:
            await self._answer(send, 404, b"", [])
            return
        told = [(b"x-seldon-route", f":{model}_1:".encode())]
        if scope["method"] == "GET":
            # the agent knows predictions only
            await self._answer(send, 400, b"Failed to get path termination for request", told)
            return
        rows = json.loads((await receive())["body"])["inputs"][0]["shape"][0]
        output = {"name": "predict", "datatype": "FP64", "shape": [rows], "data": [float(model[-1])] * rows}
        await self._answer(send, 200, json.dumps({"model_name": model, "outputs": [output]}).encode(), told)

    async def _answer(self, send, status, body, extra):
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *extra]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def server():
    mesh = Mesh()
    server = uvicorn.Server(uvicorn.Config(mesh, lifespan="off", log_level="error"))
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield mesh, f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    sock.close()


@pytest.fixture
def mesh(server):
    server[0].__init__(routes={"iris.experiment": ["iris-1", "iris-2"], "iris-1": ["iris-1"], "iris-2": ["iris-2"]})
    return server[0]


@pytest.fixture
def endpoint(mesh, server):
    return Endpoint(
        name="iris",
        url=server[1],
        model="iris",
        revision="iris-2",
        revision_url=server[1],
        revision_model="iris-2",
        headers={"seldon-model": "iris.experiment"},
        revision_headers={"seldon-model": "iris-2"},
        protocols=("v2",),
    )


def test_requests_are_shared_out_and_a_revision_is_asked_by_its_own_name(endpoint):
    with Client(endpoint) as client:
        assert [client.predict(ROWS) for _ in range(4)] == [[1.0, 1.0], [2.0, 2.0]] * 2
    assert predict(endpoint.at_revision(), ROWS) == [2.0, 2.0]


def test_a_client_keeps_to_the_revision_that_answered_first(endpoint, mesh):
    with Client(endpoint, sticky=True) as client, Client(endpoint, sticky=True) as other:
        assert [client.predict(ROWS)[0] for _ in range(3)] == [1.0] * 3
        assert [other.predict(ROWS)[0] for _ in range(3)] == [2.0] * 3
        # after a promotion there is one candidate, and a route that is sent back leads nowhere
        mesh.routes["iris.experiment"] = ["iris-2"]
        mesh.turns.clear()
        assert [client.predict(ROWS)[0] for _ in range(2)] == [2.0] * 2
        assert [other.predict(ROWS)[0] for _ in range(2)] == [2.0] * 2
    with pytest.raises(InvalidValue, match="over v2"):
        Client(replace(endpoint, protocols=("v1",)), sticky=True)


def test_who_answers_is_told_and_the_smoke_test_waits_for_it(endpoint, mesh):
    mesh.routes["iris.experiment"] = ["iris-1"]
    with Client(endpoint) as client:
        assert client.answering() == "iris-1"
    with pytest.raises(DeployError, match="still answered by revision iris-1"):
        probe(endpoint, ROWS, None, timeout_seconds=0.3)
    mesh.routes["iris.experiment"] = ["iris-2"]
    mesh.turns.clear()
    probe(endpoint, ROWS, None, timeout_seconds=5)
    probe(endpoint.at_revision(), ROWS, None, timeout_seconds=5)


def test_a_service_that_is_not_there(endpoint, mesh):
    mesh.routes.clear()
    with Client(endpoint, sticky=True) as client:
        assert client.answering() is None
        with pytest.raises((DeployError, InputError), match="404"):
            client.predict(ROWS)
    assert len(mesh.asked) == 2
