"""What an application behind Gunicorn answers, in as few calls to the kernel as can be."""

from __future__ import annotations

from collections.abc import Iterable

from gunicorn.http.wsgi import Response

__all__ = ["WsgiResponse"]


class WsgiResponse(Response):
    """An answer whose head goes with what comes first of the body."""

    _head = b""
    headers_sent: bool

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        head, self._head = self._head, b""
        self.sock.sendall(head + data)

    def send_all(self, parts: Iterable[bytes]) -> None:
        """Send what an application answers."""
        try:
            for part in parts:
                self.write(part)
            self.close()
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def close(self) -> None:
        self.send_headers()
        if self.chunked:
            self._emit_body(b"")
        elif self._head:
            self.sock.sendall(self._head)
