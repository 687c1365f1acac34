"""The client against real servers, in every protocol: longshore's own, and one behind TLS that wants a token."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pandas as pd
import pytest
import uvicorn
from harness.certificates import Authority

from longshore.client import Access, Client, predict, probe, replay
from longshore.errors import ConfigError, DeployError, InputError
from longshore.packaging import frame_to_rows, save_model
from longshore.serving import Application, Predictor
from longshore.serving.fastapi_app import create_app
from longshore.spec import Endpoint
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn
from longshore.wire.messages import INFERENCE, message

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
CLASSES = ["Adelie", "Chinstrap", "Gentoo"]
PROTOCOLS = ("v1", "v2", "grpc-v2")
HOST = "penguins-team.example.com"


@pytest.fixture(scope="module")
def trained():
    return train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    return directory, save_model(directory, trained.model, trained.card)


@pytest.fixture(scope="module")
def rows(trained):
    """Rows of every island and sex, some with gaps in numbers and in texts."""
    frame = read_table(str(PENGUINS)).drop(columns="species")
    chosen = frame_to_rows(trained.card.signature, frame.iloc[::20].head(15))
    return [*chosen, {**chosen[0], "sex": None}, {**chosen[1], "bill_length_mm": None, "island": None}]


@pytest.fixture(scope="module")
def endpoint(stored):
    """The library's server, in a process of its own."""
    directory, digest = stored
    read, write = socket.socketpair()
    command = [sys.executable, "-m", "longshore.serving", f"--model={directory}", f"--digest={digest}"]
    command += [
        "--name=penguins",
        "--revision=penguins-1",
        "--grpc-port=0",
        "--drain-seconds=0",
        f"--notify-fd={write.fileno()}",
    ]
    with read, subprocess.Popen(command, pass_fds=[write.fileno()]) as process:
        try:
            write.close()
            told = json.loads(read.makefile().readline())
            yield Endpoint(
                name="penguins",
                url=f"http://127.0.0.1:{told['port']}",
                grpc_url=f"http://127.0.0.1:{told['grpc_port']}",
                model="penguins",
                revision="penguins-1",
                protocols=PROTOCOLS,
            )
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def expected(stored, rows):
    return Predictor.load(stored[0], name="p", digest=None, version=None, revision="r").predict(rows).values


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_protocols_predict_the_same(endpoint, rows, expected, protocol):
    assert predict(endpoint, rows, protocol=protocol) == expected
    with Client(endpoint, protocol=protocol) as client:
        assert client.answering() == "penguins-1"
        assert client.predict(pd.DataFrame(rows)) == expected
        assert client.predict(rows[:1]) == expected[:1]
    probe(endpoint, rows, CLASSES, protocol=protocol)
    report = replay(endpoint, rows, CLASSES, protocol=protocol, batch_size=4)
    assert (report.requests, report.failed, report.rows) == (5, 0, len(rows))


def test_an_endpoint_predicts_by_itself(endpoint, rows, expected):
    assert endpoint.predict(rows) == expected
    assert endpoint.predict(rows, protocol="grpc-v2") == expected


def test_it_works_where_a_loop_runs_already_as_in_a_notebook(endpoint, rows, expected):
    async def cell():
        return [predict(endpoint, rows, protocol=protocol) for protocol in PROTOCOLS]

    assert asyncio.run(cell()) == [expected] * 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_bad_row_is_refused_in_the_servers_words(endpoint, rows, protocol, capfd):
    bad = {**rows[0], "bill_length_mm": "wide"}
    with pytest.raises(InputError, match=r"bill_length_mm'?: expected a number, got a string"):
        predict(endpoint, [bad], protocol=protocol)
    report = replay(endpoint, [bad], CLASSES, protocol=protocol)
    assert report.failed == 1
    assert "expected a number" in report.first_error
    # nothing beside the error that is raised
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_model_is_not_found(endpoint, rows, protocol):
    with pytest.raises(InputError, match="there is no model 'other' here"):
        predict(replace(endpoint, model="other"), rows, protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_answers(rows, protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    nowhere = Endpoint(name="m", url=f"http://127.0.0.1:{port}", model="m", revision="r", protocols=PROTOCOLS)
    with Client(nowhere, protocol=protocol) as client:
        assert client.answering() is None
        with pytest.raises(DeployError, match=rf"127\.0\.0\.1:{port}.*(did not answer|UNAVAILABLE)"):
            client.predict(rows)


def test_a_server_that_tells_nothing_useful(rows):
    """Not of the protocol, and too late."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                connection.close()

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(answer)
            there = Endpoint(
                name="m",
                url=f"http://127.0.0.1:{server.getsockname()[1]}",
                model="m",
                revision="r",
                protocols=("v1", "v2"),
            )
            with pytest.raises(DeployError, match="without a list of predictions"):
                predict(there, rows, protocol="v1")
            with pytest.raises(DeployError, match="not of the Open Inference Protocol"):
                predict(there, rows, protocol="v2")
            done.result()
        for protocol in PROTOCOLS:
            there = replace(there, protocols=PROTOCOLS)
            with pytest.raises(DeployError, match=r"did not answer|DEADLINE_EXCEEDED"):
                predict(there, rows, protocol=protocol, timeout_seconds=0.2)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificates(authority):
    return authority.issue("server", "server", hosts=[HOST, "127.0.0.1"]), authority.issue("client", "client")


class Guarded:
    """Asks for a token and for the host name that an ingress knows."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, extra = 200, []
        if headers.get("host") != HOST:
            status = 404
        elif headers.get("authorization") != "Bearer geheim":
            status, extra = 302, [(b"location", b"https://login.example.com/auth?state=1")]
        if status == 200:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": [*extra, (b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def guarded_rest(stored, authority, certificates):
    predictor = Predictor.load(stored[0], name="penguins", digest=None, version=None, revision="penguins-1")
    (certificate, key), _ = certificates
    config = uvicorn.Config(
        Guarded(create_app(Application.of(predictor))),
        lifespan="off",
        log_level="error",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ca_certs=str(authority.certificate),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
    )
    server = uvicorn.Server(config)
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield f"https://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    sock.close()


@pytest.fixture
def guarded_grpc(authority, certificates):
    """Answers 7 for each row to those who have a certificate, and notes how it was asked."""
    asked = []

    def infer(body, context):
        metadata = dict(context.invocation_metadata())
        # there is no public way to the name that a client asks for
        asked.append((context._rpc_event.call_details.host.decode(), metadata.get("x-user")))
        if metadata.get("authorization") != "Bearer geheim":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        rows = message(INFERENCE, "ModelInferRequest").FromString(body).inputs[0].shape[0]
        output = {"name": "predict", "datatype": "FP64", "shape": [rows], "contents": {"fp64_contents": [7.0] * rows}}
        return message(INFERENCE, "ModelInferResponse")(model_name="m", outputs=[output]).SerializeToString()

    server = grpc.server(ThreadPoolExecutor(2))
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    (certificate, key), _ = certificates
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([pair], authority.pem, require_client_auth=True)
    )
    server.start()
    yield f"grpcs://127.0.0.1:{port}", asked
    server.stop(0).wait()


@pytest.fixture
def access(authority, certificates, tmp_path):
    token = tmp_path / "token"
    token.write_text("geheim\n")
    certificate, key = certificates[1]
    return Access(token_file=token, ca_file=authority.certificate, cert_file=certificate, key_file=key)


@pytest.fixture
def behind(guarded_rest):
    """The endpoint as it is asked through the ingress."""
    known = Endpoint(
        name="penguins",
        url="http://penguins.team.svc",
        model="penguins",
        revision="penguins-1",
        protocols=("v1", "v2"),
        external_url=f"http://{HOST}",
    )
    return known.through(guarded_rest)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_rest_behind_tls_with_token_and_host(behind, access, rows, expected, protocol):
    assert predict(behind, rows, protocol=protocol, access=access) == expected
    probe(behind, rows, CLASSES, protocol=protocol, access=access)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_rest_that_does_not_let_in(behind, access, rows, protocol):
    with pytest.raises(DeployError, match=r"302 and sends clients to https://login.example.com/auth: .*give a token"):
        predict(behind, rows, protocol=protocol, access=replace(access, token_file=None))
    with pytest.raises(InputError, match="404: .*the host header"):
        predict(replace(behind, headers={}), rows, protocol=protocol, access=access)
    # at an IP address, the certificate is asked for by the name of what is behind it
    with pytest.raises(DeployError, match=r"its certificate is not trusted: .*other\.example\.com"):
        predict(replace(behind, headers={"Host": "other.example.com"}), rows, protocol=protocol, access=access)
    with pytest.raises(DeployError, match="its certificate is not trusted: self-signed"):
        predict(behind, rows, protocol=protocol, access=replace(access, ca_file=None))
    # how much a server tells of a certificate that it misses is up to it
    with pytest.raises(DeployError, match="did not answer: .*"):
        predict(behind, rows, protocol=protocol, access=replace(access, cert_file=None, key_file=None))
    with pytest.raises(ConfigError, match="no TLS with"):
        predict(behind, rows, protocol=protocol, access=replace(access, key_file=access.token_file))


def test_grpc_behind_tls_with_token_and_host(guarded_grpc, access, rows):
    url, asked = guarded_grpc
    headers = {"Host": HOST, "X-User": "ada"}
    there = Endpoint(name="m", url=url, model="m", revision="r", protocols=("grpc-v2",), headers=headers)
    assert predict(there, rows[:3], access=access) == [7.0] * 3
    assert set(asked) == {(HOST, "ada")}
    with pytest.raises(DeployError, match=r"UNAUTHENTICATED: who are you\?: give a token"):
        predict(there, rows[:1], access=replace(access, token_file=None))
    with pytest.raises(DeployError, match="UNAVAILABLE"):
        predict(there, rows[:1], access=replace(access, ca_file=None))
