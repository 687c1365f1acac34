"""Who may ask: bearer tokens in a file, which can be changed while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from longshore.errors import InvalidValue
from longshore.serving.refusals import RequestError
from longshore.wire.tokens import tokens_of

__all__ = ["TokenFile", "tokens_in"]

_SCHEME: Final = b"bearer "

_State = tuple[int, int, int]

_log = logging.getLogger("longshore.serving")


class TokenFile:
    """Allows the requests that carry a token of a file: one on each line, blank lines and ``# ...`` aside.

    The file is read anew when it has changed. If it cannot be read then, or a line is no token, those known before go
    on counting and the log says why; a file without any token allows nobody.

    Args:
        path: The file; where it is a link, what it leads to.

    Raises:
        InvalidValue: If the file cannot be read, holds no token, or a line is none. No message holds a token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._state = self._look()
            self._known = self._read()
        except OSError as error:
            raise InvalidValue("token-file", str(path), f"it cannot be read: {error.strerror}") from error
        if not self._known:
            raise InvalidValue("token-file", str(path), "it holds no token: write one on each line")

    def __call__(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse headers without a token.

        Args:
            headers: By name in small letters.

        Raises:
            RequestError: 401.
        """
        given = headers.get(b"authorization", b"")
        if given[: len(_SCHEME)].lower() != _SCHEME:
            raise RequestError(401, "a token is needed: send the header 'Authorization: Bearer TOKEN'")
        digest, found = _digest(given[len(_SCHEME) :].strip()), False
        # all are looked at, so that the time taken tells nothing
        for known in self._current():
            found |= hmac.compare_digest(known, digest)
        if not found:
            raise RequestError(401, "the token is not known here")

    def _current(self) -> tuple[bytes, ...]:
        with self._lock:
            try:
                state = self._look()
                if state != self._state:
                    # set first: what is wrong with a file is told once
                    self._state = state
                    self._known = self._read()
                    _log.info("%s: %d tokens are known now", self._path, len(self._known))
            except OSError as error:
                if self._state != _ABSENT:
                    self._state = _ABSENT
                    _log.error(
                        "%s cannot be read (%s): the tokens read last go on counting", self._path, error.strerror
                    )
            except InvalidValue as error:
                _log.error("%s: the tokens read last go on counting", error)
            return self._known

    def _look(self) -> _State:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _read(self) -> tuple[bytes, ...]:
        return tuple(_digest(token.encode()) for token in tokens_in(self._path))


def tokens_in(path: Path) -> tuple[str, ...]:
    """The tokens of a file.

    Args:
        path: The file.

    Raises:
        InvalidValue: If a line is none; no message holds a token.
        OSError: If it cannot be read.
    """
    return tokens_of(path.read_bytes(), option="token-file", place=str(path))


_ABSENT: Final[_State] = (-1, -1, -1)


def _digest(token: bytes) -> bytes:
    # of one length, whatever was sent
    return hashlib.sha256(token).digest()
