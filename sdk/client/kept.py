"""Clients that are kept from one call to the next."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

from longshore.client.access import Access
from longshore.client.answers import Answer
from longshore.client.connection import Client
from longshore.client.refusals import NotReached
from longshore.errors import ConfigError, InputError
from longshore.spec import Endpoint

__all__ = ["ask", "close_kept", "predict", "send_feedback"]

_MOST: Final = 8
"""So many clients are kept that nobody uses; the one that was used longest ago is ended first."""

_T = TypeVar("_T")
_Key = tuple[Any, ...]

# in the order of their last use
_kept: OrderedDict[Client, _Key] = OrderedDict()
_lock = threading.Lock()


def predict(
    endpoint: Endpoint,
    rows: Any,
    *,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
) -> list[Any]:
    """Predict rows, over connections that are kept for the next call; see :class:`longshore.client.Client`.

    It can be called from several threads at once. A connection that has broken since the last call is made anew.
    """
    return ask(endpoint, rows, protocol=protocol, access=access, timeout_seconds=timeout_seconds).predictions


def ask(
    endpoint: Endpoint,
    rows: Any,
    *,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
) -> Answer:
    """Predict rows likewise, and keep what :func:`send_feedback` takes."""
    key = _key(endpoint, protocol, access, timeout_seconds)
    if (kept := _take(key)) is not None:
        with contextlib.suppress(NotReached):
            return _used(key, kept, lambda client: client.ask(rows))
    client = Client(endpoint, protocol=protocol, access=access, timeout_seconds=timeout_seconds)
    return _used(key, client, lambda client: client.ask(rows))


def send_feedback(
    endpoint: Endpoint,
    answer: Answer,
    reward: float,
    *,
    truth: Any = None,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
) -> None:
    """Say how good an answer was; see :meth:`longshore.client.Client.send_feedback`.

    Each goes over a connection of its own: keep a :class:`longshore.client.Client` for many.
    """
    # a connection of its own: one that has broken since would not be told from one that breaks meanwhile, and a reward
    # that is sent again may count twice
    with Client(endpoint, protocol=protocol, access=access, timeout_seconds=timeout_seconds) as client:
        client.send_feedback(answer, reward, truth=truth)


def close_kept() -> None:
    """End all connections that are kept."""
    with _lock:
        clients = list(_kept)
        _kept.clear()
    for client in clients:
        client.close()


def _key(endpoint: Endpoint, protocol: str | None, access: Access | None, timeout_seconds: float) -> _Key:
    headers = frozenset(endpoint.headers.items())
    there = (
        endpoint.url,
        endpoint.grpc_url,
        endpoint.model,
        endpoint.revision,
        endpoint.protocols,
        headers,
        endpoint.ca,
    )
    return (*there, protocol, access, timeout_seconds)


def _take(key: _Key) -> Client | None:
    with _lock:
        client = next((client for client, known in reversed(_kept.items()) if known == key), None)
        if client is not None:
            del _kept[client]
        return client


def _used(key: _Key, client: Client, work: Callable[[Client], _T]) -> _T:
    try:
        done = work(client)
    except (ConfigError, InputError):
        _keep(key, client)
        raise
    except BaseException:
        client.close()
        raise
    _keep(key, client)
    return done


def _keep(key: _Key, client: Client) -> None:
    with _lock:
        _kept[client] = key
        oldest = _kept.popitem(last=False)[0] if len(_kept) > _MOST else None
    if oldest is not None:
        oldest.close()


def _forget() -> None:
    """Connections are not shared with a process that was forked."""
    global _lock  # noqa: PLW0603 - whoever held it is not here
    _lock = threading.Lock()
    _kept.clear()


atexit.register(close_kept)
os.register_at_fork(after_in_child=_forget)
