"""A packaged model inside KServe's own model server, as a process of its own on loopback."""

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from harness.system import free_ports
from prometheus_client.parser import text_string_to_metric_families

from longshore.errors import InputError
from longshore.monitoring import read_metrics, summarise
from longshore.packaging import save_model
from longshore.spec import Endpoint
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn
from longshore.wire.messages import INFERENCE, message

ROOT = Path(__file__).parents[2]
PENGUINS = ROOT / "examples" / "data" / "penguins.csv"
ROW = {
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181.0,
    "body_mass_g": 3750.0,
    "sex": "male",
    "year": 2007,
}
DATATYPES = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}
LAYOUTS = {"FP64": "<f8", "INT64": "<i8"}
FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents"}
# KServe's server listens to the whole world
LOOPBACK = """
import uvicorn
from grpc.aio._server import Server
config, listen = uvicorn.Config.__init__, Server.add_insecure_port
uvicorn.Config.__init__ = lambda self, app, *, host, **options: config(self, app, host="127.0.0.1", **options)
Server.add_insecure_port = lambda self, address: listen(self, address.replace("[::]", "127.0.0.1"))
"""
START = """
import runpy
runpy.run_module("longshore.serving.kserve_server", run_name="__main__")
"""
SERVER = ("-c", LOOPBACK + START, "--name=penguins", "--revision=penguins-1", "--model-version=3")

# the same server, with a model whose requests last until they may end, or fail
PATCHED = f"""{LOOPBACK}
import sys, time
from pathlib import Path
from longshore.errors import ModelError
from longshore.serving.core import Predictor

answers, place = Predictor.answer, Path(sys.argv.pop(1))

def answer(*arguments, **options):
    if (place / "error").exists():
        raise {{"model": ModelError, "server": KeyError}}[(place / "error").read_text()]("it broke")
    (place / "began").touch()
    while not (place / "may").exists():
        time.sleep(0.005)
    return answers(*arguments, **options)

Predictor.answer = answer
{START}"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )
    return directory, save_model(directory, trained.model, trained.card)


class Server:
    """A process of the server. KServe's gRPC does not say which port it was given, so both are chosen beforehand."""

    def __init__(self, command, log):
        self.port, self.grpc_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        command = [*command, f"--http_port={self.port}", f"--grpc_port={self.grpc_port}"]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(command, stdout=stream, stderr=stream)

    def wait_ready(self):
        wait_for(self.is_ready, self)
        return self

    def is_ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(f"{self.url}/v1/models/penguins", timeout=10).ok
        except requests.ConnectionError:
            return False

    def post(self, path, **options):
        return requests.post(f"{self.url}{path}", timeout=30, **options)

    def call(self, method, /, **fields):
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            ask = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            body = message(INFERENCE, f"{method}Request")(**fields).SerializeToString()
            return message(INFERENCE, f"{method}Response").FromString(ask(body, timeout=30, wait_for_ready=True))

    def end(self):
        self.process.kill()
        self.process.wait(30)


def wait_for(condition, server):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(stored, tmp_path_factory):
    """One for all tests that leave it as it was."""
    directory, digest = stored
    command = [sys.executable, *SERVER, f"--model={directory}", f"--digest={digest}"]
    one = Server(command, tmp_path_factory.mktemp("server") / "log")
    yield one.wait_ready()
    one.end()


def tensors(row=ROW, **changed):
    def data(name):
        return row[name] if isinstance(row[name], list) else [row[name]]

    return [
        {
            "name": name,
            "datatype": DATATYPES.get(name, "FP64"),
            "shape": [len(data(name)), 1],
            "data": data(name),
            **changed.get(name, {}),
        }
        for name in row
    ]


def over_grpc(row=ROW, *, raw=False, **fields):
    inputs, contents = [], []
    for tensor in tensors(row):
        data = [value.encode() if isinstance(value, str) else value for value in tensor.pop("data")]
        if not raw:
            tensor["contents"] = {FIELDS[tensor["datatype"]]: data}
        elif tensor["datatype"] == "BYTES":
            contents.append(b"".join(len(value).to_bytes(4, "little") + value for value in data))
        else:
            contents.append(np.array(data, LAYOUTS[tensor["datatype"]]).tobytes())
        inputs.append(tensor)
    return {"model_name": "penguins", "inputs": inputs, "raw_input_contents": contents, **fields}


def counted(server, name, **labels):
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


@pytest.mark.parametrize("row", [ROW, list(ROW.values())], ids=["by name", "in order"])
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_rows_over_v1(server, row, content_type):
    body = {"instances": [row, row], "parameters": {"probabilities": True}}
    answer = server.post("/v1/models/penguins:predict", json=body, headers={"content-type": content_type})
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content["predictions"] == ["Adelie", "Adelie"]
    assert content["classes"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert sum(content["probabilities"][0]) == pytest.approx(1)


def test_columns_over_v2(server):
    wanted = [{"name": "predict"}, {"name": "predict_proba"}]
    answer = server.post("/v2/models/penguins/infer", json={"id": "one", "inputs": tensors(), "outputs": wanted}).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("one", "penguins", "3")
    labels, shares = answer["outputs"]
    assert (labels["datatype"], labels["shape"], labels["data"]) == ("BYTES", [1], ["Adelie"])
    assert shares["shape"] == [1, 3]
    nameless = server.post("/v2/models/penguins/infer", json={"inputs": tensors()}).json()
    assert [output["name"] for output in nameless["outputs"]] == ["predict"]


@pytest.mark.parametrize("raw", [False, True])
def test_columns_over_grpc(server, raw):
    two = {name: [value, value] for name, value in ROW.items()}
    answer = server.call("ModelInfer", **over_grpc(two, raw=raw), id="one", outputs=[{"name": "predict"}])
    (output,) = answer.outputs
    assert (answer.id, answer.model_version, output.datatype, list(output.shape)) == ("one", "3", "BYTES", [2])
    told = b"\x06\0\0\0Adelie" * 2
    assert list(answer.raw_output_contents) == ([told] if raw else [])
    assert list(output.contents.bytes_contents) == ([] if raw else [b"Adelie", b"Adelie"])


def test_a_number_that_is_missing(server):
    over_rest = server.post("/v1/models/penguins:predict", json={"instances": [{**ROW, "bill_length_mm": None}]})
    assert over_rest.json() == {"predictions": ["Adelie"]}
    for raw in (False, True):
        answer = server.call("ModelInfer", **over_grpc({**ROW, "bill_length_mm": float("nan")}, raw=raw))
        assert len(answer.outputs) == 1


def test_the_model_is_described(server):
    about = requests.get(f"{server.url}/v2/models/penguins", timeout=30).json()
    assert {"name": "year", "datatype": "INT64", "shape": [-1, 1]} in about["inputs"]
    over = server.call("ModelMetadata", name="penguins")
    assert [output.name for output in over.outputs] == ["predict", "predict_proba"]
    assert server.call("ServerReady").ready
    assert server.call("ModelReady", name="penguins").ready


REFUSED = {
    "row 0, column 'bill_length_mm'": ("v1", {"instances": [{**ROW, "bill_length_mm": "long"}]}),
    "'instances' must be an array": ("v1", {"instances": "many"}),
    "the body must be a JSON object": ("v1", [1, 2]),
    "parameter 'probability' is unknown": ("v1", {"instances": [ROW], "parameters": {"probability": True}}),
    "there is no input for column 'year'": ("v2", {"inputs": tensors()[:-1]}),
    "output 'cats' is unknown": ("v2", {"inputs": tensors(), "outputs": [{"name": "cats"}]}),
    "shape [2] does not fit": ("v2", {"inputs": tensors(year={"shape": [2]})}),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_in_the_librarys_words(server, words):
    version, body = REFUSED[words]
    labels = {"protocol": version, "kind": "client", "revision": "penguins-1"}
    before = counted(server, "longshore_prediction_errors_total", **labels)
    path = "/v1/models/penguins:predict" if version == "v1" else "/v2/models/penguins/infer"
    answer = server.post(path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert counted(server, "longshore_prediction_errors_total", **labels) == before + 1


def test_what_kserves_server_cannot_read_is_refused_by_it(server):
    malformed = server.post("/v2/models/penguins/infer", json={"inputs": [{"name": "year"}]})
    assert malformed.status_code == 400
    assert malformed.json() == {"error": "the body is no V2 request: inputs.0.shape: Field required"}
    assert server.post("/v1/models/penguins:predict", data="{").status_code == 400
    assert server.post("/v1/models/cats:predict", json={}).status_code == 404
    for path in ("/v2/models/penguins/infer", "/v2/repository/models/penguins/unload"):
        assert server.post(path, data=b"{}", headers={"content-type": "text/plain"}).status_code == 400
    assert server.is_ready()


NEEDLESS = {name: value for name, value in ROW.items() if name != "year"}
REFUSED_OVER_GRPC = {
    "there is no input for column 'year'": ("INVALID_ARGUMENT", over_grpc(NEEDLESS)),
    "there is no version '4' of 'penguins'": ("NOT_FOUND", over_grpc(model_version="4")),
    "invalid content type": ("INVALID_ARGUMENT", over_grpc() | {"inputs": [{"name": "year", "datatype": "FP12"}]}),
    "Model with name cats does not exist": ("NOT_FOUND", over_grpc() | {"model_name": "cats"}),
    "its contents are not INT64 of shape [1, 1]": (
        "INVALID_ARGUMENT",
        over_grpc(raw=True) | {"raw_input_contents": [*over_grpc(raw=True)["raw_input_contents"][:-1], b"123"]},
    ),
    "a value is not UTF-8": (
        "INVALID_ARGUMENT",
        over_grpc(raw=True)
        | {"raw_input_contents": [b"\x01\0\0\0\xff", *over_grpc(raw=True)["raw_input_contents"][1:]]},
    ),
}


@pytest.mark.parametrize("words", REFUSED_OVER_GRPC)
def test_what_does_not_fit_is_refused_over_grpc(server, words):
    code, fields = REFUSED_OVER_GRPC[words]
    with pytest.raises(grpc.RpcError) as caught:
        server.call("ModelInfer", **fields)
    assert caught.value.code() is grpc.StatusCode[code]
    assert words in caught.value.details()


def test_metrics_tell_of_the_revision(server, stored):
    of = {"revision": "penguins-1"}
    before = summarise(read_metrics(f"{server.url}/metrics"), revision="penguins-1").requests
    done = {name: counted(server, "longshore_prediction_duration_seconds_count", protocol=name, **of) for name in PATHS}
    rows = counted(server, "longshore_feature_bin_total", feature="body_mass_g", **of)
    for path, body in PATHS.values():
        if path:
            assert server.post(path, json=body).ok
        else:
            server.call("ModelInfer", **body)
    for name, count in done.items():
        assert counted(server, "longshore_prediction_duration_seconds_count", protocol=name, **of) == count + 1
    assert counted(server, "longshore_feature_bin_total", feature="body_mass_g", **of) == rows + 3
    assert counted(server, "longshore_model_info", version="3", digest=stored[1], model="penguins", **of) == 1
    assert counted(server, "request_predict_seconds_count", model_name="penguins") > 0
    assert summarise(read_metrics(f"{server.url}/metrics"), revision="penguins-1").requests > before


PATHS = {
    "v1": ("/v1/models/penguins:predict", {"instances": [ROW]}),
    "v2": ("/v2/models/penguins/infer", {"inputs": tensors()}),
    "grpc-v2": (None, over_grpc()),
}


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ((f"--digest=sha256:{'0' * 64}",), 1, "does not have the recorded content"),
        (("--workers=2",), 2, "argument --workers: leave it out, each would count for itself"),
        (("--predictor_host=elsewhere",), 2, "argument --predictor_host: leave it out, the model is in this process"),
    ],
)
def test_what_cannot_be_served_ends_with_the_reason(stored, options, status, words):
    command = [sys.executable, *SERVER, f"--model={stored[0]}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def patched(stored, tmp_path):
    directory, digest = stored
    command = [sys.executable, "-c", PATCHED, str(tmp_path), *SERVER[2:], f"--model={directory}", f"--digest={digest}"]
    server = Server(command, tmp_path / "log")
    yield server.wait_ready()
    (tmp_path / "may").touch()
    server.end()


def test_a_model_that_fails_is_told_from_a_request_that_does_not_fit(patched, tmp_path):
    words = {"model": "it broke", "server": "the request failed (KeyError): the server's log says where"}
    for kind, told in words.items():
        (tmp_path / "error").write_text(kind)
        over_rest = patched.post("/v1/models/penguins:predict", json={"instances": [ROW]})
        assert (over_rest.status_code, over_rest.json()) == (500, {"error": told})
        with pytest.raises(grpc.RpcError) as caught:
            patched.call("ModelInfer", **over_grpc())
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, told)
        for protocol in ("v1", "grpc-v2"):
            assert counted(patched, "longshore_prediction_errors_total", protocol=protocol, kind=kind) == 1


def test_requests_that_have_begun_are_answered_after_a_term(patched, tmp_path):
    with ThreadPoolExecutor() as pool:
        over_rest = pool.submit(patched.post, "/v1/models/penguins:predict", json={"instances": [ROW]})
        wait_for((tmp_path / "began").exists, patched)
        (tmp_path / "began").unlink()
        called = pool.submit(patched.call, "ModelInfer", **over_grpc())
        wait_for((tmp_path / "began").exists, patched)
        patched.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(patched.port), patched)
        (tmp_path / "may").touch()
        assert over_rest.result(30).json() == {"predictions": ["Adelie"]}
        assert list(called.result(30).outputs[0].contents.bytes_contents) == [b"Adelie"]
    assert patched.process.wait(30) == 0, patched.log.read_text()


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
def test_longshores_client_asks_it_in_every_protocol(server, protocol):
    endpoint = Endpoint(
        name="penguins",
        url=server.url,
        grpc_url=f"http://127.0.0.1:{server.grpc_port}",
        model="penguins",
        revision="penguins-1",
        protocols=("v1", "v2", "grpc-v2"),
    )
    assert endpoint.predict([ROW, {**ROW, "sex": None}], protocol=protocol) == ["Adelie"] * 2
    with pytest.raises(InputError, match="bill_length_mm'?: expected a number, got a string"):
        endpoint.predict([{**ROW, "bill_length_mm": "wide"}], protocol=protocol)
