"""Predictions, written down off their path."""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone
from prometheus_client import Counter

from longshore.serving.application import Application
from longshore.serving.django_app.database import prepare
from longshore.serving.django_app.models import Prediction, ServedModel
from longshore.serving.django_app.options import DjangoOptions
from longshore.serving.django_app.writer import Unavailable, Writer
from longshore.serving.messages import Recorded

__all__ = ["Entry", "PredictionLog", "prune", "read_entry"]

_DELETED_TOGETHER: Final = 2000
"""So few, that others who write to the same file do not wait for long."""

_WRITTEN_AT_ONCE: Final = 25
_PAUSE_SECONDS: Final = 0.0002
"""Python would have requests wait for 5 ms for a thread that computes, so this one makes a pause after each
millisecond of it: the 99th percentile of latency is half of what it is without."""

_log = logging.getLogger("longshore.serving")


@dataclass(frozen=True, slots=True)
class Entry:
    """A prediction that waits to be written down.

    Args:
        time: When its answer was ready, in seconds since 1970.
        recorded: The request and its answer.
        content: Whether what was asked and answered is written down, too.
    """

    time: float
    recorded: Recorded
    content: bool

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return 500 + (self.recorded.size if self.content else 0)


class PredictionLog:
    """Writes down the predictions of an application, and what it serves.

    Args:
        application: The application; :meth:`start` makes this its ``record``.
        options: What is written down, and for how long it is kept.
        retry_seconds: How long to wait at first, and at most, until it is tried again to reach the database.
    """

    def __init__(
        self, application: Application, options: DjangoOptions, *, retry_seconds: tuple[float, float] = (1.0, 30.0)
    ) -> None:
        self._application, self._options = application, options
        self._prepared = False
        self._noted = set[tuple[str | None, str | None]]()
        self._draw: Callable[[], float] = random.random
        rows = Counter(
            "longshore_prediction_log_rows",
            "Predictions written to the prediction log, or dropped because it could not be written.",
            ["outcome"],
            registry=application.metrics.registry,
        )
        written, dropped = rows.labels("written"), rows.labels("dropped")

        def count(good: int, bad: int) -> None:
            written.inc(good)
            dropped.inc(bad)

        self._writer = Writer[Entry](
            "predictions",
            self._write,
            size=lambda entry: entry.size,
            count=count,
            maintain=self._maintain,
            retry_seconds=retry_seconds,
        )

    def start(self) -> None:
        """Begin to write down."""
        if self._options.log_share > 0:
            self._application.record = self.record
        self._writer.start()

    def record(self, recorded: Recorded) -> None:
        """Have a prediction written down some time, if it is among those that are; returns at once."""
        if self._options.log_share < 1 and self._draw() >= self._options.log_share:
            return
        content = recorded.size <= self._options.log_bytes
        if not content:
            # what is not written down is not held either
            recorded = replace(recorded, asked=None, answered={} if recorded.status == 200 else recorded.answered)
        self._writer.put(Entry(time.time(), recorded, content))

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, and end."""
        self._writer.close(seconds)

    def _write(self, entries: Sequence[Entry]) -> int:
        with _reached():
            self._prepare()
            self._note()
            try:
                with transaction.atomic():
                    for start in range(0, len(entries), _WRITTEN_AT_ONCE):
                        few = entries[start : start + _WRITTEN_AT_ONCE]
                        Prediction.objects.bulk_create([Prediction(**read_entry(entry)) for entry in few])
                        time.sleep(_PAUSE_SECONDS)
            except (OperationalError, InterfaceError):
                raise
            except (DatabaseError, ValueError):
                return self._write_each(entries)
        return 0

    def _write_each(self, entries: Sequence[Entry]) -> int:
        """Those that the database takes: one that it refuses is no other's business."""
        dropped = 0
        for entry in entries:
            row = Prediction(**read_entry(entry))
            try:
                row.save(force_insert=True)
            except (OperationalError, InterfaceError):
                raise
            except (DatabaseError, ValueError) as error:
                dropped += 1
                _log.warning("the prediction of request %s cannot be written: %s", row.request_id, error)
        return dropped

    def _maintain(self) -> None:
        with _reached():
            self._prepare()
            self._note()
            prune(days=self._options.log_days, rows=self._options.log_rows)

    def _prepare(self) -> None:
        if not self._prepared:
            prepare(self._options)
            self._prepared = True

    def _note(self) -> None:
        """Write down what is served, if that has changed."""
        # by name, as what is replaced must not be held
        predictors = self._application.models.predictors
        served = {(predictor.version, predictor.digest) for predictor in predictors}
        if served == self._noted:
            return
        for predictor in predictors:
            card = predictor.card
            ServedModel.objects.update_or_create(
                name=predictor.name,
                version=predictor.version or "",
                revision=predictor.revision,
                defaults={
                    "digest": predictor.digest or "",
                    "format": card.format,
                    "task": card.task,
                    "estimator": card.estimator,
                    "target": card.signature.target,
                    "columns": {column.name: column.kind for column in card.signature.inputs},
                    "started": timezone.now(),
                },
            )
        self._noted = served


class _reached:  # noqa: N801 - it is used as a statement
    """What the database cannot do for now becomes Unavailable, and the next try makes a new connection."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DatabaseError | InterfaceError):
            connection.close()
        if isinstance(error, OperationalError | InterfaceError):
            raise Unavailable(str(error).strip()) from error


def read_entry(entry: Entry) -> Mapping[str, Any]:
    """A prediction as a row of the log."""
    recorded = entry.recorded
    asked, answered = recorded.asked or {}, recorded.answered
    return {
        "time": dt.datetime.fromtimestamp(entry.time, dt.UTC),
        "model": recorded.predictor.name,
        "version": recorded.predictor.version or "",
        "revision": recorded.predictor.revision,
        "protocol": recorded.protocol,
        "request_id": recorded.request_id,
        "user": recorded.user or "",
        "status": recorded.status,
        "seconds": recorded.seconds,
        "rows": recorded.rows,
        "inputs": _plain(asked.get("instances", asked.get("inputs"))),
        "predictions": _plain(answered.get("predictions", answered.get("outputs"))),
        "error": str(answered.get("error", "")).replace("\0", ""),
    }


def _plain(content: Any) -> Any:
    # arrays become lists; PostgreSQL's JSON has no character 0
    text = orjson.dumps(content, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return orjson.loads(text.replace(b"\\u0000", b""))


def prune(*, days: float | None, rows: int | None) -> int:
    """Delete predictions that are too old or too many.

    Args:
        days: Those that are older go.
        rows: So many of the newest stay.

    Returns:
        How many were deleted.
    """
    deleted = 0
    if days is not None:
        deleted += _delete(time__lt=timezone.now() - dt.timedelta(days=days))
    if rows is not None:
        oldest = Prediction.objects.order_by("-id").values_list("id", flat=True)[rows - 1 : rows].first()
        if oldest is not None:
            deleted += _delete(id__lt=oldest)
    return deleted


def _delete(**which: Any) -> int:
    deleted = 0
    while ids := list(
        Prediction.objects.filter(**which).order_by("id").values_list("id", flat=True)[:_DELETED_TOGETHER]
    ):
        Prediction.objects.filter(id__in=ids).delete()
        deleted += len(ids)
    return deleted
