"""The gRPC face, spoken to over real channels, and in a process beside the REST face."""

import contextlib
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from harness.serving import refused, wait_for
from prometheus_client.parser import text_string_to_metric_families

from longshore.errors import ConfigError
from longshore.packaging import load_model, save_model
from longshore.serving import Application, Predictor, protocol
from longshore.serving.grpc_app import GrpcServer
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn
from longshore.wire.messages import HEALTH, INFERENCE, message

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
ROWS = [
    {
        "island": "Torgersen",
        "bill_length_mm": 39.1,
        "bill_depth_mm": 18.7,
        "flipper_length_mm": 181.0,
        "body_mass_g": 3750.0,
        "sex": "male",
        "year": 2007,
    },
    {
        "island": "Biscoe",
        "bill_length_mm": 50.0,
        "bill_depth_mm": 15.2,
        "flipper_length_mm": 218.0,
        "body_mass_g": 5700.0,
        "sex": "male",
        "year": 2009,
    },
]
DATATYPES = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}
FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BYTES": "bytes_contents", "FP32": "fp32_contents"}
LAYOUTS = {"FP64": "<f8", "INT64": "<i8", "FP32": "<f4", "FP16": "<f2", "BOOL": "?"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )
    return directory, save_model(directory, trained.model, trained.card)


@pytest.fixture(scope="module")
def loaded(stored):
    return load_model(*stored)


def predictor_of(loaded) -> Predictor:
    return Predictor(loaded, name="penguins", digest=None, version="3", revision="penguins-1")


@pytest.fixture
def serve():
    """Start a server and give a function that calls it; everything is ended after the test."""
    ends = []

    def start(predictor, seconds=60.0, **options):
        application = Application.of(predictor, seconds=seconds)
        server = GrpcServer(application, "127.0.0.1", 0, **options)
        server.start()
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        ends.extend([channel.close, lambda: server.stop(0).wait(30)])

        def call(name, fields=(), *, package=INFERENCE, service="inference.GRPCInferenceService", timeout=30):
            base = "HealthCheck" if package == HEALTH else name
            body = (
                fields
                if isinstance(fields, bytes)
                else message(package, f"{base}Request")(**dict(fields)).SerializeToString()
            )
            answer = channel.unary_unary(f"/{service}/{name}").future(body, timeout=timeout, wait_for_ready=True)
            call.pending = answer
            return message(package, f"{base}Response").FromString(answer.result())

        call.application, call.server, call.channel = application, server, channel
        return call

    yield start
    for end in ends:
        end()


@pytest.fixture
def call(loaded, serve):
    return serve(predictor_of(loaded))


def pack(datatype, values):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in map(str.encode, values))
    return np.array(values, LAYOUTS[datatype]).tobytes()


def request(rows=ROWS, *, raw=False, datatypes=(), **fields):
    inputs, contents = [], []
    for name in ROWS[0]:
        datatype = {**DATATYPES, **dict(datatypes)}.get(name, "FP64")
        values = [row[name] for row in rows]
        tensor = {"name": name, "datatype": datatype, "shape": [len(rows), 1]}
        if raw:
            contents.append(pack(datatype, values))
        else:
            tensor["contents"] = {
                FIELDS[datatype]: [value.encode() if isinstance(value, str) else value for value in values]
            }
        inputs.append(tensor)
    return {"model_name": "penguins", "inputs": inputs, "raw_input_contents": contents, **fields}


def refusal(call, name, fields, **options) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(name, fields, **options)
    return caught.value.code(), caught.value.details()


def predictions(predictor):
    text = predictor.metrics.render().decode()
    found = [s for family in text_string_to_metric_families(text) for s in family.samples if s.value]
    done = {s.labels["protocol"]: s.value for s in found if s.name == "longshore_prediction_duration_seconds_count"}
    return done, {s.labels["kind"]: s.value for s in found if s.name == "longshore_prediction_errors_total"}


def test_the_server_and_the_model_are_described(call):
    assert call("ServerLive").live
    assert call("ServerReady").ready
    assert call("ModelReady", {"name": "penguins"}).ready
    assert call("ModelReady", {"name": "penguins", "version": "3"}).ready
    assert call("ServerMetadata").name == "longshore"
    told = call("ModelMetadata", {"name": "penguins"})
    assert (told.name, list(told.versions), told.platform) == ("penguins", ["3"], "sklearn")
    assert {t.name: (t.datatype, list(t.shape)) for t in told.inputs}["year"] == ("INT64", [-1, 1])
    assert [(t.name, t.datatype, list(t.shape)) for t in told.outputs] == [
        ("predict", "BYTES", [-1]),
        ("predict_proba", "FP64", [-1, 3]),
    ]


def test_typed_contents_are_answered_typed(call):
    answer = call("ModelInfer", request(id="a1", outputs=[{"name": "predict"}, {"name": "predict_proba"}]))
    assert (answer.model_name, answer.model_version, answer.id) == ("penguins", "3", "a1")
    labels, shares = answer.outputs
    assert (labels.datatype, list(labels.shape)) == ("BYTES", [2])
    assert list(labels.contents.bytes_contents) == [b"Adelie", b"Gentoo"]
    assert list(shares.shape) == [2, 3]
    assert np.allclose(np.array(shares.contents.fp64_contents).reshape(2, 3).sum(axis=1), 1)
    assert not answer.raw_output_contents


def test_raw_contents_are_answered_raw(call):
    answer = call("ModelInfer", request(raw=True, outputs=[{"name": "predict"}, {"name": "predict_proba"}]))
    assert answer.raw_output_contents[0] == pack("BYTES", ["Adelie", "Gentoo"])
    assert np.frombuffer(answer.raw_output_contents[1], "<f8").reshape(2, 3).argmax(axis=1).tolist() == [0, 2]
    assert not any(output.HasField("contents") for output in answer.outputs)


def test_both_faces_answer_alike(call, loaded):
    rows = [{**ROWS[0], "body_mass_g": None, "bill_depth_mm": None}, ROWS[1]]
    tensors = [
        {"name": name, "shape": [2], "datatype": DATATYPES.get(name, "FP64"), "data": [row[name] for row in rows]}
        for name in ROWS[0]
    ]
    wanted = [{"name": "predict_proba"}]
    content = protocol.infer(predictor_of(loaded), {"inputs": tensors, "outputs": wanted})
    missing = [{name: float("nan") if value is None else value for name, value in row.items()} for row in rows]
    for raw in (False, True):
        answer = call("ModelInfer", request(missing, raw=raw, outputs=wanted))
        given = np.frombuffer(answer.raw_output_contents[0], "<f8") if raw else answer.outputs[0].contents.fp64_contents
        assert list(given) == content["outputs"][0]["data"]


@pytest.mark.parametrize("datatype", ["FP32", "FP16"])
def test_smaller_numbers_are_numbers(call, datatype):
    answer = call("ModelInfer", request(raw=True, datatypes={"body_mass_g": datatype, "year": datatype}))
    assert answer.raw_output_contents[0] == pack("BYTES", ["Adelie", "Gentoo"])


def test_what_does_not_fit_is_refused_in_the_words_of_rest(call, loaded):
    def tensor(**changes):
        asked = request()
        asked["inputs"][1] = {**asked["inputs"][1], **changes}
        return asked

    raw = request(raw=True)["raw_input_contents"]
    typed = {"fp64_contents": [1, 2]}
    for fields, words in [
        (request(model_name="cats"), "there is no model 'cats' here: this server serves 'penguins'"),
        (request(model_version="4"), "there is no version '4' of 'penguins' here: this server serves version '3'"),
        (request(inputs=[]), "'inputs' must be an array with a tensor for each column"),
        (request(outputs=[{"name": "mood"}]), "output 'mood' is unknown: the model gives predict, predict_proba"),
        (tensor(shape=[3]), "shape [3] does not fit its 2 values"),
        (tensor(name="year"), "input 'year' is there twice"),
        (tensor(datatype="FP8"), "datatype 'FP8' is unknown"),
        (tensor(datatype="FP16"), "FP16 is sent in raw_input_contents"),
        (tensor(contents={"int64_contents": [1, 2]}), "FP64 is sent in fp64_contents, not in int64_contents"),
        (tensor(contents={**typed, "fp64_contents": [1, float("inf")]}), "row 1, column 'bill_length_mm'"),
        (tensor(datatype="BYTES", contents={"bytes_contents": [b"\xff", b""]}), "a value is not UTF-8"),
        (request(raw_input_contents=raw), "input 'island': send contents or raw_input_contents, not both"),
        (request(raw=True) | {"raw_input_contents": raw[:3]}, "there are 7 inputs and 3 raw_input_contents"),
        (request(raw=True) | {"raw_input_contents": [raw[0][:-1], *raw[1:]]}, "the raw bytes end within value 1"),
        (request(raw=True) | {"raw_input_contents": [raw[0] + b"\0", *raw[1:]]}, "the raw bytes end within value 2"),
        (request(raw=True) | {"raw_input_contents": [*raw[:6], raw[6][:-1]]}, "15 raw bytes are no whole number"),
        (b"\xff\xff", "the message is not a ModelInferRequest"),
    ]:
        code, text = refusal(call, "ModelInfer", fields)
        lost = "there is no" in words
        assert code is (grpc.StatusCode.NOT_FOUND if lost else grpc.StatusCode.INVALID_ARGUMENT), words
        assert words in text
    for name in ("ModelReady", "ModelMetadata"):
        assert refusal(call, name, {"name": "cats"})[0] is grpc.StatusCode.NOT_FOUND


def test_requests_are_counted(loaded, serve):
    predictor = predictor_of(loaded)
    call = serve(predictor)
    call("ModelInfer", request())
    call("ServerReady")
    assert predictions(predictor) == ({"grpc-v2": 1}, {})
    refusal(call, "ModelInfer", request(model_name="cats"))
    refusal(call, "ModelInfer", b"\xff\xff")
    assert predictions(predictor) == ({"grpc-v2": 3}, {"client": 2})


class Breaks:
    """A model that fails, or waits until it may answer."""

    def __init__(self, error=None):
        self.error, self.began, self.may = error, threading.Event(), threading.Event()

    def predict(self, frame):
        if self.error is not None:
            raise self.error
        self.began.set()
        assert self.may.wait(30)
        return np.array(["Adelie"] * len(frame))


def test_a_failing_model_is_logged_and_tells_the_client_no_secrets(loaded, serve, caplog):
    predictor = predictor_of(replace(loaded, model=Breaks(ZeroDivisionError("in /srv/secret.py"))))
    code, text = refusal(serve(predictor), "ModelInfer", request())
    assert code is grpc.StatusCode.INTERNAL
    assert text == "the model failed (ZeroDivisionError): the server's log says where"
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "in /srv/secret.py" in str(record.exc_info[1])
    assert predictions(predictor) == ({"grpc-v2": 1}, {"model": 1})


def test_a_failing_server_is_one_too(loaded, serve, monkeypatch, caplog):
    predictor = predictor_of(loaded)
    monkeypatch.setattr("longshore.serving.drift.BinCounter.add", lambda *_: 1 / 0)
    assert refusal(serve(predictor), "ModelInfer", request()) == (
        grpc.StatusCode.INTERNAL,
        "the request failed (ZeroDivisionError): the server's log says where",
    )
    assert predictions(predictor)[1] == {"server": 1}


def test_a_request_over_the_limit_is_refused_and_the_channel_lives(loaded, serve):
    call = serve(predictor_of(loaded), message_limit=1000)
    code, text = refusal(call, "ModelInfer", request(ROWS * 20))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1000" in text
    assert call("ServerLive").live


def test_a_client_that_goes_away_is_no_failure_of_the_server(loaded, serve):
    model = Breaks()
    predictor = predictor_of(replace(loaded, model=model))
    call = serve(predictor)
    told = []

    def ask():
        try:
            call("ModelInfer", request())
        except grpc.FutureCancelledError as error:
            told.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    assert model.began.wait(30)
    # the server may begin before its client knows of the call
    wait_for(lambda: getattr(call, "pending", None)).cancel()
    caller.join(30)
    assert told
    call("ServerLive")
    model.may.set()
    # the call is over for gRPC, its thread is not
    deadline = time.monotonic() + 30
    while not predictions(predictor)[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert predictions(predictor) == ({"grpc-v2": 1}, {"client": 1})


@contextlib.contextmanager
def silent_calls(call, count):
    """Calls whose clients send no message."""
    end = threading.Event()

    def nothing():
        end.wait()
        yield from ()

    method = call.channel.stream_unary("/inference.GRPCInferenceService/ServerLive")
    calls = [method.future(nothing(), wait_for_ready=True) for _ in range(count)]
    try:
        yield calls
    finally:
        end.set()
        for one in calls:
            one.cancel()


def test_clients_that_send_no_message_do_not_keep_others_waiting_for_ever(loaded, serve):
    call = serve(predictor_of(loaded), seconds=0.5, connection_seconds=0.5, client_seconds=0.5)

    def healthy() -> bool:
        # a check that waits on the connection of the silent ones ends with it, and is made again
        with contextlib.suppress(grpc.RpcError):
            return call("Check", package=HEALTH, service="grpc.health.v1.Health").status == 1
        return False

    with silent_calls(call, 16) as silent:
        wait_for(healthy)
        assert {one.code() for one in silent} == {grpc.StatusCode.UNAVAILABLE}


def test_a_prediction_that_takes_its_time_is_not_cut_off(loaded, serve):
    model = Breaks()
    call = serve(predictor_of(replace(loaded, model=model)), connection_seconds=0.1, client_seconds=0.1)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(call("ModelInfer", request())))
    caller.start()
    assert model.began.wait(30)
    # until the connection that it came on takes no more
    with grpc.insecure_channel(f"127.0.0.1:{call.server.port}") as other:
        states = []
        other.subscribe(states.append)
        other.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=30, wait_for_ready=True)
        wait_for(lambda: grpc.ChannelConnectivity.IDLE in states[1:])
    model.may.set()
    caller.join(30)
    assert list(answers[0].outputs[0].contents.bytes_contents) == [b"Adelie", b"Adelie"]


def test_who_waits_too_long_for_others_is_told(loaded, serve):
    model = Breaks()
    predictor = predictor_of(replace(loaded, model=model))
    call = serve(predictor, seconds=0.1)
    caller = threading.Thread(target=lambda: call("ModelInfer", request()))
    caller.start()
    assert model.began.wait(30)
    assert refusal(call, "ModelInfer", request()) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "there was no prediction within 0.1 seconds: send fewer rows, or wait",
    )
    model.may.set()
    caller.join(30)
    assert predictions(predictor) == ({"grpc-v2": 2}, {"server": 1})


def test_more_calls_than_may_wait_are_refused(loaded, serve):
    call = serve(predictor_of(loaded), waiting=2)
    with silent_calls(call, 18):
        assert refusal(call, "ServerLive", ())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert wait_for(lambda: call("ServerLive").live)


def test_stopping_answers_what_has_begun_and_refuses_the_rest(loaded, serve):
    model = Breaks()
    call = serve(predictor_of(replace(loaded, model=model)))
    answers = []
    caller = threading.Thread(target=lambda: answers.append(call("ModelInfer", request())))
    caller.start()
    assert model.began.wait(30)
    ended = call.server.stop(30)
    # gRPC closes its port in a thread of its own
    wait_for(lambda: refused(f"http://127.0.0.1:{call.server.port}"))
    with grpc.insecure_channel(f"127.0.0.1:{call.server.port}") as other, pytest.raises(grpc.RpcError) as caught:
        other.unary_unary("/inference.GRPCInferenceService/ServerReady")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not ended.is_set()
    model.may.set()
    caller.join(30)
    assert ended.wait(30)
    assert list(answers[0].outputs[0].contents.bytes_contents) == [b"Adelie", b"Adelie"]


def test_health_as_kubernetes_and_load_balancers_ask_for_it(call):
    def check(service):
        return call("Check", {"service": service}, package=HEALTH, service="grpc.health.v1.Health").status

    assert [check(""), check("inference.GRPCInferenceService")] == [1, 1]
    with pytest.raises(grpc.RpcError) as caught:
        check("cats")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_port_that_is_taken_is_not_shared(call, loaded):
    with pytest.raises(ConfigError, match="choose a port that is free"):
        GrpcServer(Application.of(predictor_of(loaded)), "127.0.0.1", call.server.port)


@pytest.fixture
def process(stored, tmp_path):
    """Starts the server as a pod does, and gives the process and the ports that it says it has."""
    directory, digest = stored
    started = []

    def start(*options):
        log = tmp_path / f"log{len(started)}"
        told, tell = os.pipe()
        command = [sys.executable, "-m", "longshore.serving", f"--model={directory}", f"--digest={digest}"]
        command += ["--name=penguins", "--revision=penguins-1", "--grpc-port=0", f"--notify-fd={tell}", *options]
        with log.open("wb") as stream:
            running = subprocess.Popen(command, pass_fds=[tell], stdout=stream, stderr=stream)
        started.append(running)
        os.close(tell)
        with os.fdopen(told) as pipe:
            message = json.loads(pipe.readline() or "{}")
        assert message.get("state") == "ready", log.read_text()
        return running, message["port"], message["grpc_port"]

    yield start
    for running in started:
        running.kill()
        running.wait(30)


class Callers:
    """Clients that ask one after the other until they are ended; what they were answered, and how calls failed."""

    def __init__(self, port):
        self.answers, self.failures, self.stop = [], [], threading.Event()
        self.target = f"ipv4:127.0.0.1:{port}"
        self.threads = [threading.Thread(target=self.ask) for _ in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)

    def ask(self):
        body = message(INFERENCE, "ModelInferRequest")(**request()).SerializeToString()
        with grpc.insecure_channel(self.target) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            while not self.stop.is_set():
                try:
                    answer = message(INFERENCE, "ModelInferResponse").FromString(call(body, timeout=30))
                except grpc.RpcError as error:
                    self.failures.append(error.code())
                    return
                self.answers.append(tuple(answer.outputs[0].contents.bytes_contents))

    def wait_for(self, more):
        wanted, deadline = len(self.answers) + more, time.monotonic() + 30
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline
            assert not self.failures


class Front:
    """Leads new connections to a port, as a Service of Kubernetes leads them to a pod that is ready."""

    def __init__(self, port):
        self.leads_to = port
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.accept)
        self.connections = []

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for thread in (self.thread, *self.connections):
            thread.join(30)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                connection = threading.Thread(target=self.forward, args=[near, self.leads_to])
                self.connections.append(connection)
                connection.start()

    def forward(self, near, port):
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=self.copy, args=[far, near])
            back.start()
            self.copy(near, far)
            back.join(30)

    @staticmethod
    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def test_one_process_answers_both_and_ends_them_together(process):
    running, port, grpc_port = process("--grpc-connection-seconds=0.5")
    url = f"http://127.0.0.1:{port}"
    with Callers(grpc_port) as callers:
        rest = requests.post(f"{url}/v1/models/penguins:predict", json={"instances": ROWS}, timeout=30).json()
        assert rest == {"predictions": ["Adelie", "Gentoo"]}
        metrics = requests.get(f"{url}/metrics", timeout=30).text
        labels = 'kind="model",model="penguins",protocol="grpc-v2",revision="penguins-1",version=""'
        assert f"longshore_prediction_errors_total{{{labels}}} 0.0" in metrics
        callers.wait_for(50)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    # there is nowhere else to go
    assert len(callers.failures) == 4
    assert set(callers.failures) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert set(callers.answers) == {(b"Adelie", b"Gentoo")}


def test_clients_of_a_service_lose_no_request_when_a_server_ends(process):
    (leaving, _, first), (_, _, second) = process("--grpc-connection-seconds=1"), process()
    with Front(first) as front, Callers(front.port) as callers:
        callers.wait_for(50)
        front.leads_to = second
        leaving.send_signal(signal.SIGTERM)
        assert leaving.wait(30) == 0
        callers.wait_for(50)
    assert callers.failures == []


def test_a_server_that_is_to_end_is_not_ready_and_goes_on_answering(call):
    call.application.draining = True
    assert not call("ServerReady").ready
    assert not call("ModelReady", {"name": "penguins"}).ready
    assert call("Check", package=HEALTH, service="grpc.health.v1.Health").status == 2
    assert call("ModelInfer", request()).outputs[0].contents.bytes_contents == [b"Adelie", b"Gentoo"]


PUBLISHED = """
import sys
from google.protobuf import descriptor_pb2, descriptor_pool

def publish():
    # what the modules that kserve and tritonclient bring do when they are imported, each with its own file
    file = descriptor_pb2.FileDescriptorProto(name="grpc_predict_v2.proto", package="inference", syntax="proto3")
    for name in ("ModelInferRequest", "ModelInferResponse", "InferTensorContents"):
        message = file.message_type.add(name=name)
        message.field.add(name="other", number=1, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())

def ours():
    from longshore.wire.messages import INFERENCE, message
    return message(INFERENCE, "ModelInferRequest")

for step in sys.argv[1:]:
    globals()[step]()
request = ours()
assert request.FromString(request(model_name="m").SerializeToString()).model_name == "m"
other = descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
assert [field.name for field in other.fields] == ["other"]
assert other is not request.DESCRIPTOR
"""


@pytest.mark.parametrize("order", [("publish", "ours"), ("ours", "publish")])
def test_other_modules_with_the_same_messages_do_not_clash(order):
    command = [sys.executable, "-c", PUBLISHED, *order]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
