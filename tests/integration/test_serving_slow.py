"""Clients that are slow, or do nothing at all: they keep nobody waiting, and are cut off in time.

Starts ``python -m longshore.serving`` as a process.
"""

import contextlib
import json
import os
import select
import socket
import time
from pathlib import Path

import pytest
import requests
from harness.serving import PREDICT, ROWS, serving, wait_for

FACES = {
    "fastapi": [],
    "fastapi with workers": ["--workers=2"],
    "flask": ["--threads=2"],
    "django": ["--threads=2"],
    "django on daphne": ["--server=daphne"],
}
EACH = 3
"""More of each kind than there are threads."""

MANY = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 250
"""Answered with more than buffers take."""

HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture(params=FACES)
def serve(request, iris_model, tmp_path):
    framework, options = request.param.partition(" ")[0], FACES[request.param]
    environment = {**os.environ, "LONGSHORE_HOME": str(tmp_path)}
    return lambda *more: serving(
        iris_model, tmp_path / "log", f"--framework={framework}", *options, *more, env=environment
    )


def connect(server, content=b"", *, window: int | None = None) -> socket.socket:
    client = socket.socket()
    if window is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    client.sendall(content)
    return client


@contextlib.contextmanager
def slow_clients(server):
    """Many of each kind."""
    kinds = {
        "silent": lambda: connect(server),
        "slow head": lambda: connect(server, HEAD.encode()),
        "slow body": lambda: connect(server, f"{HEAD}Content-Length: 100\r\n\r\n".encode() + b'{"instances"'),
        "slow chunks": lambda: connect(server, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n64\r\n".encode() + b" " * 20),
        "slow reader": lambda: connect(server, MANY, window=4096),
    }
    with contextlib.ExitStack() as stack:
        yield {
            kind: [stack.enter_context(contextlib.closing(begin())) for _ in range(EACH)]
            for kind, begin in kinds.items()
        }


def cut_off(client: socket.socket) -> bool:
    """Whether the server has ended a connection; reads what has come."""
    while select.select([client], [], [], 0)[0]:
        try:
            if not client.recv(65536):
                return True
        except OSError:
            return True
    return False


def was_reset(client: socket.socket) -> bool:
    """Whether the server has dropped a connection; reads nothing."""
    poll = select.poll()
    poll.register(client, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def test_slow_clients_keep_nobody_waiting(serve):
    with serve("--client-seconds=600") as server, slow_clients(server) as slow:
        for _ in range(10):
            assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}
        # those that were slow are served like others when they go on
        body = b": [[5.1, 3.5, 1.4, 0.2]]}"
        client = slow["slow body"][0]
        client.sendall(body + b" " * (100 - len(b'{"instances"') - len(body)))
        answer = b""
        while b'{"predictions":[0]}' not in answer:
            part = client.recv(65536)
            assert part, answer
            answer += part


def test_slow_clients_are_cut_off(serve):
    with serve("--client-seconds=1") as server, slow_clients(server) as slow:
        dripping = slow["slow head"] + slow["slow body"]
        readers = slow.pop("slow reader")
        waiting = [client for clients in slow.values() for client in clients]

        def ended() -> bool:
            for client in dripping:
                with contextlib.suppress(OSError):
                    # a byte now and then does not help
                    client.sendall(b"a")
            time.sleep(0.1)
            waiting[:] = [client for client in waiting if not cut_off(client)]
            return not waiting

        wait_for(ended)
        # what they did not take in time is dropped, not kept for them
        wait_for(lambda: all(map(was_reset, readers)))
        assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}


MIB = 2**20


def padded(size: int) -> bytes:
    return json.dumps({"instances": ROWS}).encode().ljust(size)


@pytest.mark.parametrize("serve", [face for face in FACES if "workers" not in face], indirect=True)
def test_large_bodies_share_a_room(serve):
    with serve("--bodies-mib=4", "--client-seconds=600") as server, contextlib.ExitStack() as stack:

        def large(size: int) -> requests.Response:
            return requests.post(
                f"{server.url}{PREDICT}", padded(size), headers={"Content-Type": "application/json"}, timeout=30
            )

        assert large(MIB).json() == {"predictions": [0, 2]}
        half = f"{HEAD}Content-Length: {2 * MIB}\r\n\r\n".encode() + padded(9 * MIB // 10)
        halves = [stack.enter_context(contextlib.closing(connect(server, half))) for _ in range(8)]
        # four of them find room, in whatever order their parts come
        refused = wait_for(lambda: len(told := select.select(halves, [], [], 0)[0]) == 4 and told)
        for client in refused:
            answer = client.recv(65536).lower()
            assert answer.startswith(b"http/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
        answer = large(2 * MIB)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json() == {"error": "large bodies of other requests take all the room: come again in a second"}
        # others are none the worse
        assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}
        assert server.counted("http_request_duration_seconds_count", method="POST", status="503") == 5
        assert server.counted("longshore_prediction_errors_total", kind="server") == 5
        for client in halves:
            client.close()
        # one that is alone may be larger than all of the room
        assert wait_for(lambda: (answer := large(5 * MIB)).status_code == 200 and answer).json() == {
            "predictions": [0, 2]
        }


LINES = b"".join(b"X-%d: %s\r\n" % (number, b"a" * 1000) for number in range(1000))
CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
ENDLESS = {
    "path": (b"GET /", b"a" * MIB),
    "header": (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-A: ", b"a" * MIB),
    "headers": (b"GET /v2 HTTP/1.1\r\nHost: a\r\n", LINES),
    "chunk extension": (CHUNKED + b"1;a=", b"a" * MIB),
    "trailer": (CHUNKED + b"1\r\n \r\n0\r\n", LINES),
    "requests": (b"", b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n" * 30_000),
}


def memory_of(server) -> int:
    """Bytes that the processes of a server have in memory."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in {server.process.pid, *server.children()})
    return sum(pages) * os.sysconf("SC_PAGESIZE")


def test_what_has_no_end_takes_no_memory(serve):
    with serve("--client-seconds=600") as server:
        server.post(PREDICT, {"instances": ROWS})
        before = memory_of(server)
        for what, (begin, part) in ENDLESS.items():
            with contextlib.closing(connect(server, begin)) as client:
                client.settimeout(1)
                # refused, cut off, or read no further as long as nobody reads the answers
                with contextlib.suppress(OSError):
                    for _ in range(128):
                        client.sendall(part)
                assert memory_of(server) - before < 96 * MIB, what
            assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}


@pytest.mark.parametrize("broken", [b"zz\r\n", b"1\r\nabc\r\n", b"-1\r\n"])
def test_chunks_that_are_none_are_the_clients_fault(serve, broken):
    with serve() as server, contextlib.closing(connect(server, CHUNKED + broken + b"\r\n")) as client:
        client.settimeout(30)
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert server.post(PREDICT, {"instances": ROWS}).json() == {"predictions": [0, 2]}
