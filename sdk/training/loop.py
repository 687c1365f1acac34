"""The course of training a network: epochs, early stopping, and checkpoints that a retried step resumes from.

It knows no framework. What is random in an epoch depends on the seed and the epoch's number only, so that training that
was resumed goes as if it had never stopped.
"""

from __future__ import annotations

import io
import json
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from longshore import storage
from longshore.errors import ConfigError, StorageError, TrainingError

__all__ = ["Checkpoints", "Course", "Epoch", "Learner", "epoch_seed", "run_epochs"]

_ENTRIES: Final = ("course.json", "state", "best")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the training rows.

    Args:
        number: From 1 on.
        metrics: What was measured, by name: ``train_loss``, and of the validation rows ``validation_loss`` and
            ``validation_accuracy`` or ``validation_rmse``.
    """

    number: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """How training went.

    Args:
        epochs: All epochs, in order.
        best: Number of the epoch whose weights are kept.
        stopped: Whether it ended before the last epoch, as nothing got better any more.
        resumed: Number of the epoch after which it was resumed from a checkpoint; 0 if it was not.
    """

    epochs: tuple[Epoch, ...]
    best: int
    stopped: bool
    resumed: int

    @property
    def monitored(self) -> str:
        """The loss that told which epoch is the best."""
        return _monitored(self.epochs[0].metrics)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was measured in the best epoch."""
        return self.epochs[self.best - 1].metrics


class Learner(Protocol):
    """A network that is being trained."""

    def train(self, seed: int) -> Mapping[str, float]:
        """Go once over the training rows; everything random in it comes from the seed."""
        ...

    def validate(self) -> Mapping[str, float]:
        """Measure on the validation rows; nothing where there are none."""
        ...

    def state(self) -> bytes:
        """Weights, and what the optimizer remembers."""
        ...

    def restore(self, state: bytes) -> None:
        """Go back to what :meth:`state` gave."""
        ...


class Checkpoints:
    """Where the state after each epoch is kept: one file, replaced as a whole.

    Args:
        place: Path or URI of a directory that outlives the step: on Kubernetes a mounted volume or a bucket.
        identity: What is trained, as a digest: only the same training is resumed.
    """

    def __init__(self, place: str, identity: str) -> None:
        self.uri = storage.join(place, f"{identity}.checkpoint")

    def write(self, content: bytes) -> None:
        """Replace what is kept.

        Raises:
            StorageError: If it could not be written.
        """
        storage.write_file(self.uri, content)

    def read(self) -> bytes | None:
        """What is kept; None if nothing is.

        Raises:
            StorageError: If it could not be read.
        """
        try:
            with storage.open_read(self.uri) as stream:
                return stream.read()
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def clear(self) -> None:
        """Delete it: the training is over, and its model is safe."""
        storage.delete_file(self.uri)


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of everything random in an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def run_epochs(
    learner: Learner, *, epochs: int, patience: int | None, seed: int, checkpoints: Checkpoints | None = None
) -> Course:
    """Train, and leave the learner with the weights of the best epoch.

    Args:
        learner: The network.
        epochs: At most so many passes over the training rows.
        patience: It stops after so many epochs without a lower loss on the validation rows; None never stops it.
        seed: Seed of everything random.
        checkpoints: Where to keep the state after each epoch, and to resume from.

    Raises:
        ConfigError: If ``epochs`` or ``patience`` is not valid.
        StorageError: If a checkpoint cannot be read or written.
        TrainingError: If the loss is not a number any more.
    """
    for name, value in (("epochs", epochs), ("patience", 1 if patience is None else patience)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} = {value!r} is not valid: use a whole number of at least 1")
    done, best = _resume(learner, checkpoints)
    resumed = len(done)
    while len(done) < epochs and not _is_over(done, patience):
        number = len(done) + 1
        metrics = {**learner.train(epoch_seed(seed, number)), **learner.validate()}
        if bad := [name for name, value in metrics.items() if name.endswith("loss") and not math.isfinite(value)]:
            raise TrainingError(
                f"epoch {number}: {bad[0]} is {metrics[bad[0]]}: take a lower learning rate, or scale the inputs"
            )
        done.append(Epoch(number=number, metrics=metrics))
        _log.info("epoch %d of %d: %s", number, epochs, ", ".join(f"{n} {v:.4g}" for n, v in metrics.items()))
        state = learner.state()
        if best is None or _best(done) == number:
            best = state
        if checkpoints is not None:
            checkpoints.write(_pack(done, state, best))
    if best is not None:
        learner.restore(best)
    return Course(
        epochs=tuple(done), best=_best(done), stopped=len(done) < epochs and _is_over(done, patience), resumed=resumed
    )


def _monitored(metrics: Mapping[str, float]) -> str:
    return "validation_loss" if "validation_loss" in metrics else "train_loss"


def _best(epochs: Sequence[Epoch]) -> int:
    loss = _monitored(epochs[0].metrics)
    return min(epochs, key=lambda epoch: epoch.metrics[loss]).number


def _is_over(epochs: Sequence[Epoch], patience: int | None) -> bool:
    """Without validation rows nothing tells when to stop: the loss of the training rows goes on falling."""
    if patience is None or not epochs or _monitored(epochs[0].metrics) != "validation_loss":
        return False
    return len(epochs) - _best(epochs) >= patience


def _resume(learner: Learner, checkpoints: Checkpoints | None) -> tuple[list[Epoch], bytes | None]:
    content = None if checkpoints is None else checkpoints.read()
    if content is None or checkpoints is None:
        return [], None
    try:
        epochs, state, best = _unpack(content)
        learner.restore(state)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, training can begin anew
        _log.warning("the checkpoint %s cannot be used (%s): training begins anew", checkpoints.uri, error)
        return [], None
    _log.info("resumed after epoch %d from %s", len(epochs), checkpoints.uri)
    return epochs, best


def _pack(epochs: Sequence[Epoch], state: bytes, best: bytes) -> bytes:
    stream = io.BytesIO()
    course = json.dumps([{"number": epoch.number, "metrics": dict(epoch.metrics)} for epoch in epochs]).encode()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in zip(_ENTRIES, (course, state, best), strict=True):
            archive.writestr(name, content)
    return stream.getvalue()


def _unpack(content: bytes) -> tuple[list[Epoch], bytes, bytes]:
    # the archive has a checksum for each entry
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        course, state, best = (archive.read(name) for name in _ENTRIES)
    return [Epoch(**epoch) for epoch in json.loads(course)], state, best
