"""A proxy before an API server that counts requests, and makes trouble on request."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import urllib3

from harness.cluster import Cluster

__all__ = ["Proxy", "Seen"]

_BUFFER = 65536


@dataclass(frozen=True)
class Seen:
    """A request that came through.

    Args:
        method: HTTP method.
        path: Its path.
        query: Its query parameters.
        token: The bearer token that it brought.
        at: When it came, by the monotonic clock.
    """

    method: str
    path: str
    query: dict[str, str]
    token: str
    at: float

    @property
    def watches(self) -> bool:
        """Whether it opens a watch."""
        return self.query.get("watch") == "true"


@dataclass
class _Trouble:
    status: int
    headers: dict[str, str]
    body: bytes
    matches: Callable[[Seen], bool]
    times: int = field(default=1)


class Proxy:
    """Listens on loopback without TLS and asks the API server as its administrator.

    Attributes:
        url: Its address.
        seen: The requests that came, in order.
        token: If set, requests with another bearer token are refused with 401.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pool, self._credentials = cluster.pool()
        self._troubles: list[_Trouble] = []
        self._streams: list[urllib3.BaseHTTPResponse] = []
        self._lock = threading.Lock()
        self.old_watches = 0
        self.token: str | None = None
        self.seen: list[Seen] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._pool.clear()

    def fail(
        self,
        status: int,
        *,
        times: int = 1,
        headers: dict[str, str] | None = None,
        matches: Callable[[Seen], bool] = lambda _: True,
    ) -> None:
        """Answer the next requests that match with an error of the API server's form."""
        reason = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}.get(status, "Unknown")
        body = json.dumps({"kind": "Status", "message": f"trouble {status}", "reason": reason, "code": status}).encode()
        self._troubles.append(_Trouble(status, headers or {}, body, matches, times))

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._streams)

    def cut(self) -> int:
        """Break all open watches off in the middle; returns how many there were."""
        with self._lock:
            streams, self._streams = self._streams, []
        for stream in streams:
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                stream.shutdown()
        return len(streams)

    def age(self, times: int = 1) -> None:
        """Have the next watches ask for a version that the API server has long forgotten."""
        self.old_watches = times

    def count(self, method: str, *, watches: bool = False) -> int:
        """How many requests of a method came; of GET, lists and reads or watches."""
        return sum(seen.method == method and seen.watches is watches for seen in self.seen)

    def _trouble(self, seen: Seen) -> _Trouble | None:
        with self._lock:
            self.seen.append(seen)
            for trouble in self._troubles:
                if trouble.times and trouble.matches(seen):
                    trouble.times -= 1
                    return trouble
        return None

    def _open(self, seen: Seen, headers: dict[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
        query = dict(seen.query)
        if seen.watches and self.old_watches:
            self.old_watches -= 1
            query["resourceVersion"] = "1"
        target = f"{self._cluster.url}{seen.path}" + (f"?{urlencode(query)}" if query else "")
        response = self._pool.request(
            seen.method, target, body=body, headers=headers, preload_content=False, retries=False
        )
        if seen.watches:
            with self._lock:
                self._streams.append(response)
        return response

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                seen = Seen(self.command, parts.path, query, token, time.monotonic())
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                trouble = proxy._trouble(seen)
                if trouble is not None:
                    self._answer(trouble.status, trouble.headers, trouble.body)
                elif proxy.token is not None and token != proxy.token:
                    self._answer(401, {}, b'{"reason": "Unauthorized", "message": "Unauthorized"}')
                else:
                    self._forward(seen, body)

            def _forward(self, seen: Seen, body: bytes | None) -> None:
                headers = {**proxy._credentials, "Accept": "application/json"}
                if body is not None:
                    headers["Content-Type"] = self.headers["Content-Type"]
                response = proxy._open(seen, headers, body)
                if not seen.watches:
                    kept = {key: response.headers[key] for key in ("Content-Type",) if key in response.headers}
                    self._answer(response.status, kept, response.read())
                    response.release_conn()
                    return
                self.send_response(response.status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                # ends without the last chunk: to the client the connection has dropped
                with contextlib.suppress(OSError):
                    for chunk in _chunks(response):
                        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                        self.wfile.flush()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of the base class

        return Handler


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, ValueError):
        yield from response.stream(_BUFFER)
    response.close()
