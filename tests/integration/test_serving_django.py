"""The Django face behind real servers, with a real SQLite and a real PostgreSQL."""

import csv
import io
import json
import os
import re
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import requests
from harness.postgres import MISSING, Postgres, find_postgres

from longshore.packaging import save_model
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
PREDICT, INFER = "/v1/models/penguins:predict", "/v2/models/penguins/infer"
ROW = {
    "island": "Torgersen",
    "bill_length_mm": 39.1,
    "bill_depth_mm": 18.7,
    "flipper_length_mm": 181,
    "body_mass_g": 3750,
    "sex": "male",
    "year": 2007,
}
DATATYPES = {"island": "BYTES", "sex": "BYTES", "year": "INT64"}
ADMIN = {"LONGSHORE_DJANGO_ADMIN_USER": "keeper", "LONGSHORE_DJANGO_ADMIN_PASSWORD": "a-long-passphrase"}


@dataclass
class Server:
    process: subprocess.Popen
    port: int
    home: Path
    log: Path
    env: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predict(self, content=None, **options) -> requests.Response:
        content = {"instances": [ROW]} if content is None else content
        with session() as client:
            return client.post(self.url + PREDICT, json=content, timeout=30, **options)

    def get(self, path, **options) -> requests.Response:
        with session() as client:
            return client.get(self.url + path, timeout=30, **options)

    def rows(self, query="SELECT * FROM longshore_prediction ORDER BY id") -> list[dict]:
        with sqlite3.connect(self.home / "django" / "django.db") as connection:
            connection.row_factory = sqlite3.Row
            found = [dict(row) for row in connection.execute(query)]
        connection.close()
        return found

    def manage(self, *arguments: str, check=True) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "longshore.serving.django_app", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip() if check else done.stderr

    def counted(self, outcome: str) -> float:
        found = re.search(
            rf'longshore_prediction_log_rows_total{{outcome="{outcome}"}} (\S+)', self.get("/metrics").text
        )
        return float(found[1])


def session() -> requests.Session:
    made = requests.Session()
    made.trust_env = False
    return made


def until(condition: Callable, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.linear_model.LogisticRegression"
    )
    return directory, save_model(directory, trained.model, trained.card)


@contextmanager
def running(model, home: Path, *, server="uvicorn", arguments=(), **env: str) -> Iterator[Server]:
    home.mkdir(exist_ok=True)
    log = home / f"{server}.log"
    environment = {**os.environ, "LONGSHORE_HOME": str(home), **env}
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *[sys.executable, "-m", "longshore.serving", "--model", str(model[0]), "--digest", model[1]],
        *["--name", "penguins", "--model-version", "1", "--revision", "penguins-1"],
        *["--framework", "django", "--server", server, "--port", str(port), *arguments],
        *(["--workers", "2"] if server == "gunicorn" else []),
    ]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment)
    try:
        one = Server(process, port, home, log, environment)

        def up():
            assert process.poll() is None, log.read_text()
            try:
                return one.get("/v2/health/ready").ok
            except requests.ConnectionError:
                return False

        until(up, 60)
        yield one
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module", params=["uvicorn", "daphne", "gunicorn"])
def server(request, model, tmp_path_factory) -> Iterator[Server]:
    """One for all tests that leave it as it was."""
    home = tmp_path_factory.mktemp(request.param)
    with running(model, home, server=request.param, **ADMIN) as one:
        yield one


@pytest.fixture
def postgres(tmp_path_factory) -> Iterator[Postgres]:
    programs = find_postgres()
    if programs is None:
        pytest.skip(MISSING)
    # not below pytest's own folder, which only its user can enter
    with tempfile.TemporaryDirectory(prefix="longshore-postgres-") as folder:
        Path(folder).chmod(0o755)
        one = Postgres(Path(folder) / "data", programs)
        one.start()
        try:
            yield one
        finally:
            if one.runs:
                one.stop()


def tensors():
    return [
        {"name": name, "datatype": DATATYPES.get(name, "FP64"), "shape": [1], "data": [value]}
        for name, value in ROW.items()
    ]


def test_both_protocols_are_answered_and_written_down(server):
    marks = {
        "v1": f"one-{os.urandom(4).hex()}",
        "v2": f"two-{os.urandom(4).hex()}",
        "bad": f"bad-{os.urandom(4).hex()}",
    }
    v1 = server.predict(headers={"X-Request-Id": marks["v1"]})
    with session() as client:
        v2 = client.post(
            server.url + INFER, json={"inputs": tensors()}, headers={"X-Request-Id": marks["v2"]}, timeout=30
        )
    bad = server.predict({"instances": [{**ROW, "year": "now"}]}, headers={"X-Request-Id": marks["bad"]})
    assert (v1.status_code, v1.json()) == (200, {"predictions": ["Adelie"]})
    assert v2.json()["outputs"][0]["data"] == ["Adelie"]
    assert bad.status_code == 400
    assert v1.headers["x-request-id"] == marks["v1"]
    by_id = until(
        lambda: (
            len(found := {row["request_id"]: row for row in server.rows() if row["request_id"] in marks.values()}) == 3
            and found
        )
    )
    one, two, wrong = (by_id[marks[name]] for name in ("v1", "v2", "bad"))
    assert (one["model"], one["version"], one["revision"]) == ("penguins", "1", "penguins-1")
    assert (one["protocol"], one["rows"], one["status"], one["user"]) == ("v1", 1, 200, "")
    assert json.loads(one["inputs"]) == [ROW]
    assert json.loads(one["predictions"]) == ["Adelie"]
    assert 0 < one["seconds"] < 30
    assert json.loads(two["inputs"]) == tensors()
    assert json.loads(two["predictions"])[0]["data"] == ["Adelie"]
    assert (wrong["status"], wrong["error"]) == (400, bad.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/v2/health/ready", 405),
        ("POST", "/v1/models/other:predict", 404),
        ("POST", PREDICT, 400),
        ("GET", "/v2/models/penguins/versions/9", 404),
    ],
)
def test_no_error_of_a_prediction_path_is_html(server, method, path, status):
    with session() as client:
        answer = client.request(method, server.url + path, data=b"<no json>" if method == "POST" else None, timeout=30)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_over_the_limit_is_refused_in_json(server, chunked):
    parts = (b" " * 2**20 for _ in range(33))
    with session() as client:
        answer = client.post(server.url + PREDICT, data=parts if chunked else b" " * 33 * 2**20, timeout=60)
    assert answer.status_code == 413
    assert str(32 * 2**20) in answer.json()["error"]


@pytest.mark.parametrize("path", [PREDICT, "/admin/login/"], ids=["prediction", "panel"])
def test_a_body_without_an_end_is_not_kept(server, path):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(head.encode())
        sent = 0
        with suppress(ConnectionError):
            while sent < 200 and not select.select([client], [], [], 0)[0]:
                client.sendall(part)
                sent += 1
        # refused before it was over, or dropped
        assert sent < 200 or scratch_of(server.process.pid) <= 33 * 2**20
    assert server.predict().status_code == 200


def test_daphne_keeps_nothing_of_a_body_that_has_no_room(model, tmp_path):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {8 * 2**20}\r\n\r\n".encode()
    with (
        running(model, tmp_path / "home", server="daphne", arguments=["--bodies-mib=1"]) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as first,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as second,
    ):
        first.sendall(head + bytes(900_000))
        until(lambda: scratch_of(server.process.pid) > 800_000)
        second.sendall(head + bytes(200_000))
        assert second.recv(4096).startswith(b"HTTP/1.1 503 ")
        second.sendall(bytes(7 * 2**20))
        # it is answered once what was sent before is read
        assert server.predict().status_code == 200
        assert scratch_of(server.process.pid) <= 900_000


def scratch_of(pid: int) -> int:
    """Bytes of the files without a name that a process has open."""
    size = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # it may be closed by now
        with suppress(FileNotFoundError):
            size += file.stat().st_size if str(file.readlink()).endswith("(deleted)") else 0
    return size


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_what_is_sent_to_the_panel_has_the_same_limit(server, chunked):
    parts = (b" " * 2**20 for _ in range(33))
    with session() as client:
        answer = client.post(f"{server.url}/admin/login/", data=parts if chunked else b" " * 33 * 2**20, timeout=60)
    assert answer.status_code == 413
    assert str(32 * 2**20) in answer.text


def test_probes_with_any_host_name_are_answered_and_the_panel_is_not(server):
    host = {"Host": "10.2.3.4:8080"}
    assert server.get("/v2/health/ready", headers=host).status_code == 200
    assert server.predict(headers=host).status_code == 200
    refused = server.get("/admin/login/", headers=host)
    assert refused.status_code == 400
    assert "Traceback" not in refused.text


def log_in(client: requests.Session, url: str, user="keeper", password="a-long-passphrase") -> requests.Response:
    page = client.get(f"{url}/admin/login/", timeout=30)
    form = {"username": user, "password": password, "next": "/admin/", "csrfmiddlewaretoken": csrf(page)}
    return client.post(f"{url}/admin/login/", data=form, timeout=30)


def csrf(page: requests.Response) -> str:
    return re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]


def test_the_panel_shows_predictions_and_models_to_those_who_log_in(server):
    mark = f"panel-{os.urandom(4).hex()}"
    server.predict({"instances": [{**ROW, "island": "=1+1"}]}, headers={"X-Request-Id": mark})
    until(lambda: any(row["request_id"] == mark for row in server.rows()))
    with session() as client:
        stranger = client.get(f"{server.url}/admin/longshore/prediction/", timeout=30)
        assert "/admin/login/" in stranger.url
        assert "Please enter the correct" in log_in(client, server.url, password="wrong").text
        home = log_in(client, server.url)
        assert "Model server" in home.text
        assert "frame-ancestors 'none'" in home.headers["content-security-policy"]
        listed = client.get(f"{server.url}/admin/longshore/prediction/?q={mark}", timeout=30)
        assert listed.text.count(mark) >= 1
        pk = next(row["id"] for row in server.rows() if row["request_id"] == mark)
        assert client.get(f"{server.url}/admin/longshore/prediction/{pk}/change/", timeout=30).status_code == 200
        served = client.get(f"{server.url}/admin/longshore/servedmodel/", timeout=30)
        assert "penguins-1" in served.text
        assert "LogisticRegression" in served.text
        export = {"action": "export_csv", "_selected_action": pk, "csrfmiddlewaretoken": csrf(listed)}
        file = client.post(f"{server.url}/admin/longshore/prediction/?q={mark}", data=export, timeout=30)
        assert file.headers["content-type"].startswith("text/csv")
        row = next(iter(csv.DictReader(io.StringIO(file.text))))
        assert (row["request_id"], json.loads(row["inputs"])[0]["island"]) == (mark, "=1+1")
        missing = client.get(f"{server.url}/admin/nothing/", timeout=30)
        assert missing.status_code == 404
        assert "Traceback" not in missing.text


def test_the_panels_files_are_there_and_no_others(server):
    style = server.get("/static/admin/css/base.css")
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css")
    assert server.get("/static/../options.py").status_code == 404
    assert server.get("/static/%2e%2e/%2e%2e/models.py").status_code == 404
    assert server.get("/static/admin").status_code == 404


@pytest.mark.parametrize("kind", ["uvicorn", "daphne", "gunicorn"])
def test_what_was_accepted_is_answered_and_written_down_before_the_end(model, tmp_path, kind):
    answered, failures, stop = [], [], threading.Event()

    with running(model, tmp_path / "home", server=kind) as server:

        def ask(number):
            with session() as client:
                while not stop.is_set():
                    mark = f"{number}-{len(answered)}-{os.urandom(3).hex()}"
                    try:
                        answer = client.post(
                            server.url + PREDICT, json={"instances": [ROW]}, headers={"X-Request-Id": mark}, timeout=30
                        )
                    except requests.ConnectionError as error:
                        # nobody listens any more: it was not accepted
                        if "refused" not in str(error):
                            failures.append(repr(error))
                        return
                    (answered if answer.status_code == 200 else failures).append(mark)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 50)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join()
        written = {row["request_id"] for row in server.rows()}
        assert set(answered) <= written
        assert failures == []
        assert written == set(answered)


def test_two_processes_write_to_one_sqlite(model, tmp_path):
    home = tmp_path / "home"
    with running(model, home) as one, running(model, home, server="daphne") as other:

        def ask(server):
            for _ in range(60):
                assert server.predict().status_code == 200

        threads = [threading.Thread(target=ask, args=(server,)) for server in (one, other) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: len(one.rows()) == 240)
        assert one.counted("dropped") == other.counted("dropped") == 0


def test_tables_are_made_once_however_many_begin(model, tmp_path):
    environment = {**os.environ, "LONGSHORE_HOME": str(tmp_path), **ADMIN}
    command = [sys.executable, "-m", "longshore.serving.django_app", "check"]
    racing = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in racing:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    with sqlite3.connect(tmp_path / "django" / "django.db") as connection:
        names = [name for (name,) in connection.execute("SELECT app || '.' || name FROM django_migrations")]
        assert len(names) == len(set(names)) > 10
        assert connection.execute("SELECT username, is_superuser FROM auth_user").fetchall() == [("keeper", 1)]
    connection.close()
    assert (tmp_path / "django").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "django" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_tokens_are_made_used_and_revoked(model, tmp_path):
    with running(model, tmp_path / "home", arguments=["--require-token"], **ADMIN) as server:
        assert server.get("/v2/health/ready").status_code == 200
        assert server.get("/metrics").status_code == 200
        refused = server.predict()
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert server.get("/v2/models/penguins").status_code == 401
        token = server.manage("create_token", "alice", "notebook")
        short = server.manage("create_token", "bob", "visit", "--days", "0.00005")
        held = {"Authorization": f"Bearer {token}"}
        until(lambda: server.predict(headers=held).status_code == 200, 10)
        until(lambda: server.predict(headers={"Authorization": f"Bearer {short}"}).status_code == 401, 15)
        assert server.get("/v2/models/penguins", headers=held).status_code == 200
        assert until(lambda: [row for row in server.rows() if row["status"] == 200])[-1]["user"] in ("alice", "bob")
        stored = server.rows("SELECT * FROM longshore_token")
        assert token not in json.dumps(stored)
        assert server.manage("revoke_token", "alice") == "1 revoked"
        until(lambda: server.predict(headers=held).status_code == 401, 10)
        assert "alice has no such token" in server.manage("revoke_token", "alice", check=False)
        with session() as client:
            log_in(client, server.url)
            page = client.get(f"{server.url}/admin/longshore/token/add/", timeout=30)
            form = {"user": "1", "label": "from the panel", "csrfmiddlewaretoken": csrf(page)}
            shown = client.post(f"{server.url}/admin/longshore/token/add/", data=form, timeout=30)
            token = re.search(r'<pre id="token">(ls_[\w-]+)</pre>', shown.text)[1]
            until(lambda: server.predict(headers={"Authorization": f"Bearer {token}"}).status_code == 200, 10)
            listed = client.get(f"{server.url}/admin/longshore/token/", timeout=30)
            assert token not in listed.text
            pk = server.rows("SELECT id FROM longshore_token ORDER BY id DESC")[0]["id"]
            assert client.get(f"{server.url}/admin/longshore/token/{pk}/change/", timeout=30).status_code == 200
            form = {"action": "revoke_tokens", "_selected_action": pk, "csrfmiddlewaretoken": csrf(listed)}
            assert "1 revoked" in client.post(f"{server.url}/admin/longshore/token/", data=form, timeout=30).text
        until(lambda: server.predict(headers={"Authorization": f"Bearer {token}"}).status_code == 401, 10)


def test_predictions_go_on_while_the_disk_is_full(model, tmp_path):
    with running(model, tmp_path / "home") as server:
        server.predict()
        until(lambda: server.counted("written") == 1)
        size = (tmp_path / "home" / "django" / "django.db-wal").stat().st_size
        # the kernel refuses what would make the file larger
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for _ in range(20):
            assert server.predict({"instances": [ROW] * 50}).status_code == 200
        until(lambda: "predictions cannot be written" in server.log.read_text())
        assert server.counted("written") == 1
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
        until(lambda: server.counted("written") == 21)
        assert server.log.read_text().count("cannot be written") == 1
        assert len(server.rows()) == 21


def test_postgres_keeps_the_log_and_predictions_go_on_without_it(model, tmp_path, postgres):
    secret = tmp_path / "url"
    secret.write_text(postgres.url)

    def logged():
        with psycopg.connect(postgres.url) as connection:
            return connection.execute('SELECT request_id, "user", inputs FROM longshore_prediction').fetchall()

    told = {"LONGSHORE_DJANGO_DATABASE_URL_FILE": str(secret), **ADMIN}
    with (
        running(model, tmp_path / "one", arguments=["--require-token"], **told) as server,
        running(model, tmp_path / "two", server="daphne", **told) as other,
    ):
        token = server.manage("create_token", "alice", "notebook")
        held = {"Authorization": f"Bearer {token}"}
        until(lambda: server.predict(headers=held).status_code == 200)
        assert other.predict({"instances": [{**ROW, "island": "a\0b"}]}).status_code == 200
        assert until(lambda: len(found := logged()) == 2 and found)
        assert {user for _, user, _ in logged()} == {"alice", ""}
        postgres.stop()
        for _ in range(10):
            assert server.predict(headers=held).status_code == 200
        until(lambda: "cannot be written for now" in server.log.read_text())
        assert server.predict(headers=held).status_code == 200
        postgres.start()
        until(lambda: len(logged()) == 13, 60)
        assert server.counted("dropped") == 0
        command = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    for text in (command.decode(), *(path.read_text() for path in tmp_path.glob("*/*.log"))):
        assert "s3cret" not in text


def test_a_server_starts_without_its_database_and_finds_it_later(model, tmp_path, postgres):
    postgres.stop()
    with running(model, tmp_path / "home", LONGSHORE_DJANGO_DATABASE_URL=postgres.url) as server:
        assert server.predict().status_code == 200
        assert "the database cannot be used for now" in server.log.read_text()
        postgres.start()
        until(lambda: server.counted("written") == 1, 60)


@pytest.mark.parametrize(
    ("arguments", "env", "why"),
    [
        ([], {"LONGSHORE_DJANGO_LOG_SHARE": "2"}, "log_share = 2.0 is not valid"),
        ([], {"LONGSHORE_DJANGO_DATABASE_URL": "mysql://me:s3cret@db/x"}, "database_url = '(hidden)' is not valid"),
        (["--server", "apache"], {}, "server = 'apache' is not valid: with django use gunicorn or daphne or uvicorn"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_serves(model, tmp_path, arguments, env, why):
    done = subprocess.run(
        [
            *[sys.executable, "-m", "longshore.serving", "--model", str(model[0]), "--name", "penguins"],
            *["--revision", "penguins-1", "--framework", "django", *arguments],
        ],
        env={**os.environ, "LONGSHORE_HOME": str(tmp_path), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert why in done.stderr
    assert "s3cret" not in done.stderr
