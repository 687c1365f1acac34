"""What a server's refusal means to a client."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Final

from longshore.errors import DeployError, InputError, LongshoreError

__all__ = ["Busy", "NotReached", "causes", "no_trust", "refused", "words_of"]

_SHOWN: Final = 200
_TORCHSERVE_KEY: Final = '"InvalidKeyException"'
# not the rows' fault, though HTTP calls it the client's
_NOT_OF_THE_ROWS: Final = frozenset({401, 403, 407, 408, 425, 429})


class Busy(DeployError):
    """Too much is asked of a server just now: it said when to come again.

    Args:
        message: What it said.
        seconds: How long it wants to be left alone.
    """

    def __init__(self, message: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(message)


class NotReached(DeployError):
    """The connection broke, or there was none; a new one may do."""


def refused(
    url: str, status: int, body: str, location: str | None = None, retry_after: str | None = None
) -> LongshoreError:
    """The error to raise for an HTTP answer that is no prediction.

    Args:
        url: What was asked.
        status: HTTP status.
        body: The answer's text.
        location: Where it sends the client instead.
        retry_after: When the client may come again.
    """
    if 300 <= status < 400:
        where = "" if location is None else f" and sends clients to {location.partition('?')[0]}"
        return DeployError(f"{url} answered {status}{where}: if that is a login, give a token")
    said = words_of(body)
    if status in (401, 403):
        said = f"{said or 'no reason given'}: give a token that is allowed there"
    elif status == 404 and not said:
        said = "nothing is known there: behind an ingress, the host header tells it which service is meant"
    if status in (429, 503) and retry_after is not None and retry_after.isdecimal():
        return Busy(f"{url} answered {status}: {said}", float(retry_after))
    if _TORCHSERVE_KEY in body:
        # which TorchServe answers with 400
        return DeployError(f"{url} answered {status}: {said}: give a token that is allowed there")
    rows = 400 <= status < 500 and status not in _NOT_OF_THE_ROWS
    return (InputError if rows else DeployError)(f"{url} answered {status}: {said}")


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies behind it, the nearest first."""
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__


def no_trust(url: str, error: BaseException) -> DeployError | None:
    """The error to raise for a certificate that is not to be trusted; None if something else is wrong."""
    # urllib3 compares names itself where the address is not the name
    from urllib3.util.ssl_match_hostname import CertificateError

    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError | CertificateError):
            why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else cause
            return DeployError(
                f"{url}: its certificate is not trusted: {why}. Say who vouches for it (Tls.ca of the router, or "
                "Access.ca_file), and the name that it is for (Tls.host)"
            )
    return None


def words_of(body: str) -> str:
    """A server's own words.

    V1 and V2 have them in ``error``, FastAPI in ``detail``, TorchServe in ``message``, Seldon in ``status``.
    """
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict):
        for key in ("error", "detail", "message"):
            if isinstance(content.get(key), str):
                return str(content[key])
        status = content.get("status")
        if isinstance(status, dict) and isinstance(status.get("info"), str):
            return str(status["info"])
    return body.strip()[:_SHOWN]
