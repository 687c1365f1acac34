"""What a pod of the platform ``torchserve`` runs, as processes: its arguments and files, with other places and ports.

The package is brought by longshore's setup, a real TorchServe loads it, and a real Nginx is the gate.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests
from harness.certificates import Authority
from harness.nginx import find_nginx, nginx
from harness.system import Missing, free_port

from longshore.client import Access, Client, probe
from longshore.errors import DeployError
from longshore.packaging import (
    Workers,
    load_model,
    package_torchserve,
    read_card,
    rows_to_frame,
    save_files,
    save_model,
)
from longshore.packaging.torchserve import CONFIG_FILE, config_properties
from longshore.spec import Endpoint, ModelSource, Release, Service, Tls, TorchServeOptions
from longshore.targets.gate import GATE_ANNOTATION, GATE_GRPC, GATE_HTTP, GATE_METRICS
from longshore.targets.kserve import KServeTarget
from longshore.targets.torchserve import TorchServeTarget
from longshore.training import train_sklearn

TOKEN = "3f1c9d0e7ab24c55"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
OPTIONS = TorchServeOptions(token_secret="tokens", tls=Tls(secret="tls"))


@pytest.fixture(scope="module")
def package(penguins, tmp_path_factory):
    place = tmp_path_factory.mktemp("penguins")
    trained = train_sklearn(penguins, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    digest = save_model(place / "model", trained.model, trained.card)
    model = ModelSource(uri=str(place / "model"), format="sklearn", name="penguins", digest=digest)
    return package_torchserve(model, str(place / "packages"), name="penguins", version="3")


@dataclass
class Pod:
    """The processes of a pod, in a folder of its own."""

    folder: Path
    release: Release
    ports: dict[int, int]

    def __post_init__(self):
        (deployment, *_) = TorchServeTarget().render(self.release)
        self.template = deployment["spec"]["template"]
        self.setup, self.server = self.template["spec"]["initContainers"]
        for name in ("models", "tmp", "tokens", "gate-tokens", "tls", "gate"):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "tokens" / "token").write_text(f"# of the tests\n{TOKEN}\n")

    @property
    def url(self):
        scheme = "http" if self.release.service.torchserve.tls is None else "https"
        return f"{scheme}://localhost:{self.ports[GATE_HTTP]}"

    def moved(self, text):
        """With the places and ports of this machine."""
        folder = self.folder
        for there, here in {
            "s3://bucket/penguins": os.environ["PACKAGE"],
            "/mnt/models": folder / "models",
            "/mnt/tokens": folder / "tokens",
            "/mnt/gate-tokens": folder / "gate-tokens",
            "/etc/longshore-tokens": folder / "gate-tokens",
            "/etc/longshore-tls": folder / "tls",
            "/dev/termination-log": folder / "words",
            "/tmp/ready": folder / "tmp" / "ready",
        }.items():
            text = text.replace(there, str(here))
        for there, here in self.ports.items():
            for before in (":", "port=", "listen ", "listen 127.0.0.1:"):
                text = text.replace(f"{before}{there}", f"{before}{here}")
        return text

    def command(self, container):
        python = {"python": sys.executable}
        words = [*container["command"], *container["args"]]
        return [python.get(word, self.moved(word)) for word in words]

    def bring(self):
        environment = {**os.environ, "TMPDIR": str(self.folder / "tmp")}
        return subprocess.run(
            self.command(self.setup), env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    @contextlib.contextmanager
    def serving(self, ready=True):
        done = self.bring()
        assert done.returncode == 0, done.stderr
        environment = {**os.environ, "TMPDIR": str(self.folder / "tmp")}
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(self.command(self.server), env=environment, stdout=log, stderr=log)
        try:
            if ready:
                self.wait_for((self.folder / "tmp" / "ready").exists, process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def wait_for(self, condition, process, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    @contextlib.contextmanager
    def gate(self):
        text = self.template["metadata"]["annotations"][GATE_ANNOTATION]
        text = text.replace("listen ", "listen 127.0.0.1:").replace(" /tmp/", f" {self.folder}/gate/")
        if os.geteuid() == 0:
            text = f"user root;\n{text}"
        port = self.ports[GATE_HTTP]
        with nginx(self.moved(text), self.folder) as process:
            self.wait_for(lambda: listens(port), process)
            yield


def listens(port):
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def place():
    """Sockets of workers lie in it, whose paths may not be long."""
    with tempfile.TemporaryDirectory(prefix="ts-") as folder:
        yield Path(folder)


def pod(folder, package, monkeypatch, **changes):
    monkeypatch.setenv("PACKAGE", package.uri)
    service = Service(name="penguins", torchserve=replace(OPTIONS, **changes))
    release = Release(service=service, model=replace(package, uri="s3://bucket/penguins"))
    ports = {number: free_port() for number in (GATE_HTTP, GATE_GRPC, GATE_METRICS, 8083, 8084, 8085, 8086, 7070, 7071)}
    return Pod(folder, release, ports)


@pytest.fixture(scope="module")
def running(package):
    try:
        find_nginx()
    except Missing as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.ExitStack() as stack:
        one = pod(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ts-"))), package, monkeypatch)
        authority = Authority(one.folder)
        certificate, key = authority.issue("server", "localhost", hosts=["localhost"])
        (one.folder / "tls" / "tls.crt").write_bytes(certificate.read_bytes())
        (one.folder / "tls" / "tls.key").write_bytes(key.read_bytes())
        with one.serving() as process, one.gate():
            yield one, process


@pytest.fixture
def ask(running):
    one, _ = running

    def post(path, content=None, headers=HEADERS, **options):
        options = {"timeout": 60, "verify": str(one.folder / "ca.crt"), "headers": headers, **options}
        method = "GET" if content is None else "POST"
        return requests.request(method, f"{one.url}{path}", json=content, **options)

    return post


def test_predictions_are_right_with_a_token_over_tls(running, ask, package):
    card = read_card(Path(package.uri))
    rows = [dict(row) for row in card.example]
    expected = load_model(Path(package.uri)).predict
    answer = ask("/v1/models/penguins:predict", {"instances": rows})
    assert (answer.status_code, answer.headers["x-longshore-revision"]) == (200, running[0].release.revision)
    endpoint = Endpoint(
        name="penguins",
        url=running[0].url,
        model="penguins",
        revision=running[0].release.revision,
        ca=(running[0].folder / "ca.crt").read_text(),
    )
    probe(endpoint, card.example, card.signature.classes, access=Access(token=TOKEN))
    frame = rows_to_frame(card.signature, card.example)
    assert answer.json()["predictions"] == expected(frame, conformed=True).tolist()


def test_a_client_with_a_wrong_token_is_told_in_the_gates_words(running):
    one, _ = running
    ca = (one.folder / "ca.crt").read_text()
    endpoint = Endpoint(name="penguins", url=one.url, model="penguins", revision=one.release.revision, ca=ca)
    card = read_card(Path(os.environ["PACKAGE"]))
    with pytest.raises(DeployError, match="401.*a token is needed that is known here"):
        probe(endpoint, card.example, card.signature.classes, access=Access(token="another-token-0123456789"))


@pytest.mark.parametrize("token", [None, "Bearer wrong", f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN}x", TOKEN])
def test_without_the_token_nothing_is_answered(ask, token):
    headers = {} if token is None else {"Authorization": token}
    answer = ask("/v1/models/penguins:predict", {"instances": []}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"].startswith("a token is needed that is known here")


def test_readiness_needs_no_token_and_tells_the_revision(running, ask):
    answer = ask("/v2/health/ready", headers={})
    assert answer.json() == {"ready": True, "revision": running[0].release.revision}
    assert ask("/-/gate/ready", headers={}).status_code == 200
    assert ask("/ping").json() == {"status": "Healthy"}


@pytest.mark.parametrize("path", ["/models", "/models/penguins", "/token?type=inference", "/metrics", "/-/gate/health"])
def test_management_is_out_of_reach(ask, path):
    assert ask(path).status_code == 404


def test_torchserve_itself_listens_on_loopback_only(running):
    one, _ = running
    listening = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                listening.add((address, int(port, 16)))
    ours = {number: address for address, number in listening if number in one.ports.values()}
    assert {one.ports[number] for number in (8083, 8084, 8085, 8086, 7070, 7071)} <= set(ours)
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    assert set(ours.values()) <= loopback


def test_metrics_have_a_port_of_their_own(running, ask):
    ask("/predictions/penguins", {"instances": [dict(read_card(Path(os.environ["PACKAGE"])).example[0])]})
    text = requests.get(f"http://127.0.0.1:{running[0].ports[GATE_METRICS]}/metrics", timeout=30).text
    assert 'ts_inference_requests_total{model_name="penguins"' in text


@pytest.mark.parametrize("protocol", ["torchserve", "grpc-torchserve", "v1"])
def test_every_protocol_wants_the_token(running, package, protocol):
    one, _ = running
    endpoint = replace(
        TorchServeTarget().endpoint(one.release, []),
        url=one.url,
        grpc_url=f"https://localhost:{one.ports[GATE_GRPC]}",
        headers={},
        ca=(one.folder / "ca.crt").read_text(),
    )
    card = read_card(Path(package.uri))
    expected = load_model(Path(package.uri)).predict(rows_to_frame(card.signature, card.example), conformed=True)
    with Client(endpoint, protocol=protocol, access=Access(token=TOKEN)) as client:
        assert client.predict(card.example) == expected.tolist()
    with (
        Client(endpoint, protocol=protocol, access=Access(token="another-token-0123456789")) as client,
        pytest.raises(DeployError, match="a token is needed that is known here"),
    ):
        client.predict(card.example)


def changed(package, place, entries, layout="standalone"):
    """A copy of a package whose archive has other files; with a digest of its own, so that it is brought."""
    source, archive = Path(package.uri), "model-store/penguins-3.mar"

    def write(folder):
        (folder / "config").mkdir()
        (folder / "model-store").mkdir()
        models = {"penguins": {"3": "penguins-3.mar"}}
        (folder / CONFIG_FILE).write_text(config_properties(models, Workers(), layout=layout))
        with zipfile.ZipFile(source / archive) as there, zipfile.ZipFile(folder / archive, "w") as here:
            for name, data in ({name: there.read(name) for name in there.namelist()} | entries).items():
                here.writestr(name, data)

    digest = save_files(place / "changed", write, read_card(source))
    return replace(package, uri=str(place / "changed"), digest=digest)


@pytest.mark.parametrize("path", ["../outside.py", "/etc/outside"])
def test_an_archive_that_climbs_out_is_not_brought(package, tmp_path, place, monkeypatch, path):
    one = pod(place, changed(package, tmp_path, {path: b"x"}), monkeypatch)
    done = one.bring()
    assert done.returncode == 1
    assert f"holds the path {path!r}, which leads out of it" in done.stderr
    assert not (one.folder / "models" / "torchserve_process.py").exists()


def test_another_content_than_was_recorded_is_not_brought(package, place, monkeypatch):
    done = pod(place, replace(package, digest="sha256:" + "0" * 64), monkeypatch).bring()
    assert done.returncode == 1
    assert "does not have the recorded content" in done.stderr


def test_a_secret_without_a_token_is_told_and_never_shown(package, place, monkeypatch):
    one = pod(place, package, monkeypatch)
    (one.folder / "tokens" / "token").write_text("too-short")
    done = one.bring()
    assert done.returncode == 1
    assert "line 1 is no token: use 16 or more" in done.stderr
    assert "too-short" not in done.stderr


RAISES = b"""
class Handler:
    def initialize(self, context):
        raise LookupError("no weights at /data/weights")

    def handle(self, data, context):
        return data
"""


def test_a_handler_that_raises_ends_the_process_with_its_traceback(package, tmp_path, place, monkeypatch):
    one = pod(place, changed(package, tmp_path, {"handler.py": RAISES}), monkeypatch)
    with one.serving(ready=False) as process:
        assert process.wait(120) == 1
    first, *_, error, last = (one.folder / "words").read_text().splitlines()
    assert first == "Traceback (most recent call last):"
    assert error == "LookupError: no weights at /data/weights"
    assert last == f"TorchServe cannot load penguins, version 3: {error}"
    assert not (one.folder / "tmp" / "ready").exists()


def test_an_archive_that_torchserve_does_not_take_ends_the_process(package, tmp_path, place, monkeypatch):
    manifest = {"model": {"modelName": "penguins", "modelVersion": "3", "handler": "handler.py"}, "runtime": "none"}
    entries = {"MAR-INF/MANIFEST.json": json.dumps(manifest).encode()}
    one = pod(place, changed(package, tmp_path, entries), monkeypatch)
    with one.serving(ready=False) as process:
        assert process.wait(120) == 1
    assert "TorchServe has not taken penguins-3.mar: " in (one.folder / "words").read_text()


def test_without_java_its_launchers_own_words_are_the_last(package, place, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/none")
    one = pod(place, package, monkeypatch)
    with one.serving(ready=False) as process:
        assert process.wait(60) == 1
    assert "java not found, please make sure JAVA_HOME is set properly" in (one.folder / "log").read_text()
    # the log's end takes its place then
    assert not (one.folder / "words").exists()


DIES = b"""
import os
from longshore.serving.torchserve_handler import TabularHandler

class Handler(TabularHandler):
    def handle(self, data, context):
        os._exit(3)
"""


def test_a_worker_that_dies_is_told_and_started_again(package, tmp_path, place, monkeypatch):
    """In a package that is laid out for KServe, whose addresses do not count here."""
    one = pod(place, changed(package, tmp_path, {"handler.py": DIES}, layout="kserve"), monkeypatch)
    url = f"http://127.0.0.1:{one.ports[8085]}"
    with one.serving() as process:
        answer = requests.post(f"{url}/predictions/penguins", json={"instances": []}, timeout=60)
        assert answer.status_code >= 500
        assert "Worker died" in answer.text
        one.wait_for(lambda: requests.get(f"{url}/ping", timeout=10).json()["status"] == "Healthy", process)


def test_longshores_own_server_answers_in_its_place(package, place, monkeypatch):
    one = pod(place, package, monkeypatch, instead="longshore", tls=None, plaintext=True)
    card = read_card(Path(package.uri))
    with one.serving(ready=False) as process:
        one.wait_for(lambda: listens(one.ports[8085]), process)
        with one.gate():
            revision = one.release.revision
            endpoint = Endpoint(name="penguins", url=one.url, model="penguins", revision=revision)
            probe(endpoint, card.example, card.signature.classes, access=Access(token=TOKEN))
            body = {"instances": [dict(row) for row in card.example]}
            assert requests.post(f"{one.url}/v1/models/penguins:predict", json=body, timeout=30).status_code == 401
            metrics = requests.get(f"http://127.0.0.1:{one.ports[GATE_METRICS]}/metrics", timeout=30).text
            assert f'revision="{revision}"' in metrics


def test_what_kserves_runtime_runs_answers_v1_and_v2_itself(package, place, monkeypatch):
    """The arguments of KServe's runtime, and those of the InferenceService after them, as KServe puts them together."""
    one = pod(place, package, monkeypatch)
    (service,) = KServeTarget().render(Release(service=Service(name="penguins"), model=one.release.model))
    model = service["spec"]["predictor"]["model"]
    runtime = ["torchserve", "--start", "--model-store=/mnt/models/model-store"]
    runtime.append("--ts-config=/mnt/models/config/config.properties")
    ports = {**one.ports, 8080: one.ports[8085]}
    one = Pod(place, one.release, {number: ports[number] for number in (8080, 8082, 8086, 7070, 7071)})
    one.server = {**one.server, "command": model["command"], "args": [*runtime, *model["args"]]}
    monkeypatch.setattr(Pod, "bring", lambda self: subprocess.CompletedProcess([], 0))
    monkeypatch.setenv("TS_SERVICE_ENVELOPE", "kserve")
    (place / "models").rmdir()
    (place / "models").symlink_to(package.uri)
    rows = [dict(row) for row in read_card(Path(package.uri)).example]
    url = f"http://127.0.0.1:{one.ports[8080]}"
    endpoint = Endpoint(name="penguins", url=url, model="penguins", revision="any")
    card = read_card(Path(package.uri))
    with one.serving():
        probe(endpoint, card.example, card.signature.classes)
        body = {"inputs": [{"name": "island", "shape": [1], "datatype": "BYTES", "data": [rows[0]["island"]]}]}
        refused = requests.post(f"{url}/v2/models/penguins/infer", json=body, timeout=30)
        assert refused.status_code == 400
        assert "there is no input for column" in refused.json()["error"]
        assert requests.get(f"{url}/models", timeout=30).status_code != 200
