"""A request of HTTP/1 as it comes in, as far as one has to know it to tell whether it is all there.

It is for whoever parses it to judge it: what is wrong with a request is left to that, as long as judging needs nothing
more of the client.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HEAD_LIMIT", "Incoming"]

HEAD_LIMIT: Final = 64 * 1024
"""Largest head in bytes."""

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*(?=\r\n)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECTS: Final = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\r\n]*)?")


class Incoming:
    """The bytes of a connection from the begin of a request on.

    Args:
        body_limit: Largest body that is waited for; of a larger one, as much is as shows that it is larger.

    Attributes:
        content: All that has come, without the header ``Expect``, which is answered already.
        whole: Whether the request is all there. Where it is not and what came is enough, the rest is nobody's business.
        too_long: Whether the head is too long.
        continues: Whether the client waits for a word before it sends the body.
        given_up: Whether the body is not waited for any more.
    """

    def __init__(self, body_limit: int) -> None:
        self._limit = body_limit
        self.content = bytearray()
        self.whole = False
        self.too_long = False
        self.continues = False
        self.given_up = False
        # where the body begins, and what is known not to be its end
        self._body, self._read = 0, 0
        # None is a body in chunks
        self._length: int | None = 0
        self._decoded = 0

    def add(self, data: bytes) -> bool:
        """Take what has come.

        Returns:
            Whether that is enough: for the request to be answered, or refused.
        """
        self.content += data
        if not self._body and not self._find_body():
            return self.too_long
        if self._length is None:
            return self._follow_chunks()
        self.whole = len(self.content) >= self._body + self._length
        return self.whole or self._length > self._limit

    def give_up(self) -> None:
        """Keep no more than the head, which is there."""
        del self.content[self._body :]
        self.given_up = True

    def _find_body(self) -> bool:
        """Read the head, if it is there."""
        end = self.content.find(_END, self._read, HEAD_LIMIT)
        if end < 0:
            self._read = max(0, len(self.content) - len(_END))
            self.too_long = len(self.content) >= HEAD_LIMIT
            return False
        head = bytes(self.content[: end + 2])
        if (expects := _EXPECTS.search(head)) is not None:
            # answered here: the parser would do so once more
            head = head[: expects.start()] + head[expects.end() :]
            self.content[: end + 2] = head
        self._body = self._read = len(head) + 2
        if _CHUNKED.search(head) is not None:
            self._length = None
        elif (length := _LENGTH.search(head)) is not None:
            self._length = int(length[1])
        wanted = self._length is None or 0 < self._length <= self._limit
        self.continues = expects is not None and wanted and len(self.content) == self._body
        return True

    def _follow_chunks(self) -> bool:
        while (line := self.content.find(b"\r\n", self._read)) >= 0:
            size = _SIZE.fullmatch(self.content, self._read, line)
            if size is None:
                return True
            length, begin = int(size[1], 16), line + 2
            if length == 0:
                # trailers may follow, and an empty line does
                self.whole = self.content.find(_END, line) >= 0
                return self.whole or len(self.content) - line > HEAD_LIMIT
            if self._decoded + min(length, len(self.content) - begin) > self._limit:
                return True
            if len(self.content) < begin + length + 2:
                return False
            self._read, self._decoded = begin + length + 2, self._decoded + length
        # no size is that long
        return len(self.content) - self._read > HEAD_LIMIT
