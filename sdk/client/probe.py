"""What a series of requests says of an endpoint."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from longshore.client.access import Access
from longshore.client.connection import Client
from longshore.client.refusals import Busy
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.spec import Endpoint

__all__ = ["ProbeReport", "check_answers", "probe", "replay"]

Rows = Sequence[Mapping[str, Any]]

_SETTLE_SECONDS: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """What came of a series of requests.

    Args:
        requests: Requests sent.
        failed: Requests without a usable answer.
        rows: Rows predicted.
        p50_seconds: Median time of a request, as the client saw it.
        p99_seconds: 99th percentile (nearest rank).
        first_error: The first failure's message, empty without one.
    """

    requests: int
    failed: int
    rows: int
    p50_seconds: float
    p99_seconds: float
    first_error: str = ""


def check_answers(predictions: Sequence[Any], rows: int, classes: Sequence[Any] | None) -> None:
    """Refuse answers that cannot come from the model.

    Args:
        predictions: What the endpoint answered.
        rows: How many rows were sent.
        classes: The model's classes, None for a regression: then finite numbers are due.

    Raises:
        DeployError: Saying which answer is wrong.
    """
    if len(predictions) != rows:
        raise DeployError(f"{rows} rows were sent and {len(predictions)} predictions came back")
    for index, value in enumerate(predictions):
        if classes is not None:
            if value not in classes:
                raise DeployError(f"row {index}: the endpoint predicts {value!r}, which is no class of the model")
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise DeployError(f"row {index}: the endpoint predicts {value!r}, a finite number is due")


@contextmanager
def _settled(
    endpoint: Endpoint, protocol: str | None, access: Access | None, timeout_seconds: float
) -> Iterator[Client]:
    """A client whose connection leads to the endpoint's own revision.

    A cluster's address may need a moment until it leads there: every node learns for itself which pods are ready, and
    the ones before still answer. A server that does not tell its revision is taken as it is.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        with Client(endpoint, protocol=protocol, access=access, timeout_seconds=timeout_seconds) as client:
            revision = client.answering()
            if revision == endpoint.revision:
                yield client
                return
            if time.monotonic() > deadline:
                if revision is None:
                    # the request itself tells best why nothing answers
                    yield client
                    return
                raise DeployError(
                    f"{endpoint.url} is still answered by revision {revision} after {timeout_seconds:g} s"
                )
        time.sleep(_SETTLE_SECONDS)


def probe(
    endpoint: Endpoint,
    rows: Rows,
    classes: Sequence[Any] | None,
    *,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
    output: str | None = None,
) -> None:
    """Smoke test: predict the rows one by one and together; both must give the same, valid answers.

    Args:
        endpoint: Where to ask; where the server tells its revision, it must be the endpoint's.
        rows: Rows that the model takes.
        classes: The model's classes, None for a regression.
        protocol: What to ask in; None is the first that the endpoint speaks.
        access: Token and certificates.
        timeout_seconds: For each request, for the address to lead to the endpoint's revision, and for a server that has
            the client come again later.
        output: The one of the model's outputs that is judged, where it has several.

    Raises:
        DeployError: If an answer is missing, invalid or depends on what else is in the request.
        InputError: If the model refuses a row.
    """
    with _settled(endpoint, protocol, access, timeout_seconds) as client:
        together = _judged(_in_time(partial(client.predict, rows), timeout_seconds), output)
        check_answers(together, len(rows), classes)
        for index, row in enumerate(rows):
            alone = _judged(_in_time(partial(client.predict, [row]), timeout_seconds), output)
            check_answers(alone, 1, classes)
            if not _same(alone[0], together[index]):
                raise DeployError(f"row {index} gives {alone[0]!r} alone and {together[index]!r} among others")


def _judged(predictions: list[Any], output: str | None) -> list[Any]:
    if output is None:
        return predictions
    return [value.get(output) if isinstance(value, Mapping) else value for value in predictions]


def _in_time(ask: Callable[[], list[Any]], timeout_seconds: float) -> list[Any]:
    """What is answered in the end: a limit of requests holds for this client as for any other."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return ask()
        except Busy as busy:
            if time.monotonic() + busy.seconds > deadline:
                raise
            time.sleep(busy.seconds)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-9)
    return bool(left == right)


def replay(
    endpoint: Endpoint,
    rows: Rows,
    classes: Sequence[Any] | None,
    *,
    batch_size: int = 1,
    protocol: str | None = None,
    access: Access | None = None,
    timeout_seconds: float = 30,
    output: str | None = None,
) -> ProbeReport:
    """Send rows as traffic and count what comes back; a failed request is counted, not raised.

    Args:
        endpoint: Where to send them.
        rows: The rows, at least one.
        classes: The model's classes, None for a regression.
        batch_size: Rows in one request.
        protocol: What to ask in; None is the first that the endpoint speaks.
        access: Token and certificates.
        timeout_seconds: For each request.
        output: The one of the model's outputs that is judged, where it has several.
    """
    if not rows:
        raise InvalidValue("rows", [], "give at least one row")
    if batch_size < 1:
        raise InvalidValue("batch_size", batch_size, "use at least 1")
    seconds: list[float] = []
    errors: list[str] = []
    with Client(endpoint, protocol=protocol, access=access, timeout_seconds=timeout_seconds) as client:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            began = time.perf_counter()
            try:
                check_answers(_judged(client.predict(batch), output), len(batch), classes)
            except (DeployError, InputError) as error:
                errors.append(str(error))
            seconds.append(time.perf_counter() - began)
    seconds.sort()
    return ProbeReport(
        requests=len(seconds),
        failed=len(errors),
        rows=len(rows),
        p50_seconds=statistics.median(seconds),
        p99_seconds=seconds[math.ceil(0.99 * len(seconds)) - 1],
        first_error=errors[0] if errors else "",
    )
