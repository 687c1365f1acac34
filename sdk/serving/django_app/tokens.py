"""Users' tokens: who may ask. A request costs no query, and the database holds digests only."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from longshore.serving.refusals import RequestError

if TYPE_CHECKING:
    from longshore.serving.django_app.options import DjangoOptions

__all__ = ["READ_SECONDS", "Known", "TokenCheck", "create_token", "digest_of", "read_tokens", "revoke"]

READ_SECONDS: Final = 2.0
"""A token that is made or revoked is known so soon."""

_STALE_SECONDS: Final = 300.0
"""What was known of tokens counts for so long after the database was last reached."""

_USED_SECONDS: Final = 60.0
_PREFIX: Final = "ls_"

_log = logging.getLogger("longshore.serving")


@dataclass(frozen=True, slots=True)
class Known:
    """What a token stands for.

    Args:
        user: Name of its user.
        expires: Until when, in seconds since 1970; None without end.
    """

    user: str
    expires: float | None


def digest_of(token: str) -> str:
    """What the database has of a token. It is random and long, so that nothing slower is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(user: Any, label: str, expires: dt.datetime | None = None) -> tuple[Any, str]:
    """Make a token for a user.

    Returns:
        Its row, which is saved, and the token, which is nowhere else.
    """
    from longshore.serving.django_app.models import Token

    token = _PREFIX + secrets.token_urlsafe(32)
    row = Token.objects.create(
        user=user, label=label, digest=digest_of(token), hint=token[: len(_PREFIX) + 5], expires=expires
    )
    return row, token


def revoke(tokens: Any) -> int:
    """Revoke the tokens of a query that are not revoked yet; gives how many."""
    from django.utils import timezone

    number: int = tokens.filter(revoked=None).update(revoked=timezone.now())
    return number


def read_tokens() -> dict[str, Known]:
    """The tokens that count, by digest."""
    from longshore.serving.django_app.models import Token

    rows = Token.objects.filter(revoked=None, user__is_active=True)
    return {
        digest: Known(user, None if expires is None else expires.timestamp())
        for digest, user, expires in rows.values_list("digest", "user__username", "expires").order_by()
    }


class TokenCheck:
    """Whether requests come with a token that counts: an ``authorise`` of the application.

    Tokens are read again and again by a thread. While the database is away, those that were known go on counting for
    five minutes; after that no request is let in.

    Args:
        options: Where the tables are to be made, if they are not there.
    """

    def __init__(self, options: DjangoOptions) -> None:
        self._options = options
        self._known: Mapping[str, Known] = {}
        self._read_at = -float("inf")
        self._used: dict[str, float] = {}
        self._ended, self._tried = threading.Event(), threading.Event()
        self._prepared = self._failing = False
        self._thread = threading.Thread(target=self._run, name="tokens", daemon=True)

    def start(self) -> None:
        """Begin to read; returns once it was tried."""
        self._thread.start()
        self._tried.wait(30)

    def close(self) -> None:
        """End."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def __call__(self, headers: Mapping[bytes, bytes]) -> str:
        """The user whose token a request has.

        Raises:
            RequestError: 401 without one, 503 if it cannot be known.
        """
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise RequestError(401, "a token is needed: send the header 'Authorization: Bearer TOKEN'")
        if time.monotonic() - self._read_at > _STALE_SECONDS:
            raise RequestError(503, "tokens cannot be checked for now: come again in a second")
        digest = hashlib.sha256(token.strip()).hexdigest()
        known = self._known.get(digest)
        now = time.time()
        if known is None or (known.expires is not None and known.expires <= now):
            raise RequestError(401, "the token is unknown, has expired or was revoked: ask for a new one")
        self._used[digest] = now
        return known.user

    def _run(self) -> None:
        from django.db import DatabaseError, InterfaceError, connection

        from longshore.errors import ConfigError
        from longshore.serving.django_app.database import prepare

        written = time.monotonic()
        while not self._ended.is_set():
            try:
                if not self._prepared:
                    prepare(self._options)
                    self._prepared = True
                self._known, self._read_at = read_tokens(), time.monotonic()
                if self._used and time.monotonic() - written > _USED_SECONDS:
                    written = time.monotonic()
                    self._write_used()
                if self._failing:
                    self._failing = False
                    _log.info("tokens are read again")
            except (DatabaseError, InterfaceError, ConfigError) as error:
                connection.close()
                if not self._failing:
                    self._failing = True
                    _log.warning("tokens cannot be read (%s): those known count for five minutes", str(error).strip())
            self._tried.set()
            self._ended.wait(READ_SECONDS)
        connection.close()

    def _write_used(self) -> None:
        from longshore.serving.django_app.models import Token

        used, self._used = self._used, {}
        for digest, when in used.items():
            Token.objects.filter(digest=digest).update(last_used=dt.datetime.fromtimestamp(when, dt.UTC))
