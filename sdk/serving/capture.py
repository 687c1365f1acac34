"""Writing down a share of what is asked and answered, away from the requests.

Files hold a JSON object in each line:

===============  ========================================================================
``time``         when it was answered, ISO 8601 in UTC
``request_id``   the request's id; empty over gRPC
``model``        name of the model; ``version`` and ``revision`` likewise
``inputs``       the values by column, as they were sent
``predictions``  a class or number for each row; ``probabilities`` if they were asked for
===============  ========================================================================

A file that is being written ends in ``.part``. A finished one is never touched again, but for the oldest, which go once
all of them take more room than they may.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from longshore.errors import ConfigError, InvalidValue

if TYPE_CHECKING:
    from longshore.serving.core import Ask, Prediction, Predictor
    from longshore.serving.metrics import Metrics

__all__ = ["Capture"]

_WAITING: Final = 1024
_FILE_BYTES: Final = 16 * 2**20
_FILE_SECONDS: Final = 300.0
_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE

_log = logging.getLogger("longshore.serving")

_Entry = tuple["Predictor", "Ask", "Prediction", float]


class Capture:
    """Writes requests and predictions to files of a directory. It can be used from several threads at once.

    What cannot be written, because the disk is full or slower than the requests, is counted and left out: predictions
    never wait for it.

    Args:
        directory: Where to; it is made if need be.
        share: Share of the requests that are written, from 0 to 1.
        metrics: Where it counts.
        revision: The revision, for the files' names.
        file_bytes: A file is finished once it is so large, or five minutes old.
        total_bytes: What this directory's finished files may take together.

    Raises:
        ConfigError: If nothing can be written there.
        InvalidValue: If the share is none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        share: float,
        metrics: Metrics,
        revision: str,
        file_bytes: int = _FILE_BYTES,
        total_bytes: int = 64 * _FILE_BYTES,
    ) -> None:
        if not 0 < share <= 1:
            raise InvalidValue("capture-share", share, "use a share over 0, and up to 1")
        self._directory, self._share, self._metrics = directory, share, metrics
        self._file_bytes, self._total_bytes = file_bytes, total_bytes
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / f".{os.getpid()}").touch()
            (directory / f".{os.getpid()}").unlink()
        except OSError as error:
            raise ConfigError(f"requests cannot be captured in {directory}: {error.strerror}") from error
        self._prefix = f"{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
        self._queue: queue.Queue[_Entry | None] = queue.Queue(_WAITING)
        self._file: BinaryIO | None = None
        self._path = directory
        self._number, self._size, self._began = 0, 0, 0.0
        self._failing = False
        self._thread = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._thread.start()

    def offer(self, predictor: Predictor, ask: Ask, prediction: Prediction) -> None:
        """Have a request written, or left out, as chance has it."""
        if random.random() >= self._share:  # noqa: S311 - nothing depends on nobody guessing it
            return
        try:
            self._queue.put_nowait((predictor, ask, prediction, time.time()))
        except queue.Full:
            self._metrics.captured(written=False)

    def close(self) -> None:
        """Write what waits, and finish the file. Nothing is to be offered any more."""
        self._queue.put(None)
        self._thread.join()

    def _write_all(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=_FILE_SECONDS if self._file is None else self._time_left())
            except queue.Empty:
                self._finish()
                continue
            if entry is None:
                self._finish()
                return
            try:
                self._write(_line(*entry))
            except Exception as error:  # noqa: BLE001 - it is told, and predictions go on
                self._metrics.captured(written=False)
                self._failed(error)
            else:
                self._metrics.captured(written=True)
                self._failing = False

    def _time_left(self) -> float:
        return max(0.0, self._began + _FILE_SECONDS - time.monotonic())

    def _write(self, line: bytes) -> None:
        if self._file is not None and (self._size + len(line) > self._file_bytes or self._time_left() <= 0):
            self._finish()
        if self._file is None:
            self._number += 1
            self._path = self._directory / f"{self._prefix}-{self._number:06}.jsonl.part"
            # unbuffered: a line is there or it is not
            self._file = self._path.open("xb", buffering=0)
            self._size, self._began = 0, time.monotonic()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError("the disk is full")
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(line)

    def _finish(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            if self._size:
                self._path.rename(self._path.with_suffix(""))
            else:
                self._path.unlink()
            self._make_room()

    def _make_room(self) -> None:
        files = [(path.stat().st_mtime, path, path.stat().st_size) for path in self._directory.glob("*.jsonl")]
        room = self._total_bytes - sum(size for _, _, size in files)
        for _, path, size in sorted(files):
            if room >= 0:
                return
            path.unlink(missing_ok=True)
            room += size

    def _failed(self, error: Exception) -> None:
        # once, and not for each request
        if not self._failing:
            _log.error("requests cannot be captured in %s: %s; predictions go on", self._directory, error)
        self._failing = True


def _line(predictor: Predictor, ask: Ask, prediction: Prediction, moment: float) -> bytes:
    entry: dict[str, Any] = {
        "time": datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds"),
        "request_id": ask.request_id,
        "model": predictor.name,
        "version": predictor.version,
        "revision": predictor.revision,
        "inputs": ask.by_column(predictor.card.signature.names),
        "predictions": prediction.values,
    }
    if prediction.probabilities is not None:
        entry["probabilities"] = prediction.probabilities
    return orjson.dumps(entry, option=_OPTIONS, default=_listed)


def _listed(value: Any) -> Any:
    # a column of an array is not in one piece
    return value.tolist()
