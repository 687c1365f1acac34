"""A PyTorch network in training: batches from a DataLoader, steps of an optimizer, and all of its state as bytes."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from longshore.errors import TrainingError
from longshore.training.imports import import_path
from longshore.training.networks import Recipe, build_part
from longshore.training.tensors import Batches
from longshore.training.torch_modules import Served

__all__ = ["TorchLearner"]


class _Rows(torch.utils.data.Dataset[Any]):
    """Whole batches: the loader asks for many rows at once."""

    def __init__(self, batches: Batches, targets: np.ndarray) -> None:
        self._batches, self._targets = batches, targets

    def __len__(self) -> int:
        return len(self._targets)

    def __getitems__(self, rows: list[int]) -> tuple[list[np.ndarray], np.ndarray]:
        return list(self._batches(rows).values()), self._targets[rows]


def _tensors(batch: tuple[list[np.ndarray], np.ndarray]) -> tuple[list[torch.Tensor], torch.Tensor]:
    arrays, targets = batch
    return [torch.from_numpy(array) for array in arrays], torch.from_numpy(targets)


class TorchLearner:
    """See :class:`longshore.training.loop.Learner`.

    Args:
        served: The network, with what is before and after it.
        training: Rows to learn from.
        validation: Rows to measure on; there may be none.
        recipe: How.
        loader_workers: Processes that prepare batches.

    Raises:
        TrainingError: If the optimizer or the loss cannot be built.
    """

    def __init__(
        self, served: Served, training: Batches, validation: Batches, recipe: Recipe, *, loader_workers: int = 0
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._served, self._recipe, self._workers = served.to(self._device), recipe, loader_workers
        self._classes = served.scale is None
        self._training = _Rows(training, self._scaled(training.targets))
        self._validation = _Rows(validation, self._scaled(validation.targets))
        optimizer = import_path("optimizer", recipe.optimizer, example="torch.optim.AdamW")
        weights = [weight for weight in served.parameters() if weight.requires_grad]
        if not weights:
            raise TrainingError(f"{recipe.network} has no weights to train")
        self._optimizer = build_part(recipe.optimizer, optimizer, recipe.optimizer_parameters, weights)
        loss = import_path("loss", recipe.loss, example="torch.nn.CrossEntropyLoss")
        self._loss = build_part(recipe.loss, loss, {}) if isinstance(loss, type) else loss

    def _scaled(self, targets: np.ndarray) -> np.ndarray:
        if self._served.scale is None:
            return targets
        mean, deviation = self._served.scale
        scaled: np.ndarray = ((targets - mean) / deviation).astype(np.float32)
        return scaled

    def train(self, seed: int) -> Mapping[str, float]:
        _seed_all(seed)
        self._served.train()
        total, rows = 0.0, 0
        for tensors, targets in self._loaded(self._training, shuffle=torch.Generator().manual_seed(seed)):
            self._optimizer.zero_grad()
            loss = self._measure(self._scores(tensors), targets)
            loss.backward()
            self._optimizer.step()
            total, rows = total + float(loss.detach()) * len(targets), rows + len(targets)
        return {"train_loss": total / rows}

    def validate(self) -> Mapping[str, float]:
        rows = len(self._validation)
        if not rows:
            return {}
        self._served.eval()
        total, measured = 0.0, 0.0
        with torch.inference_mode():
            for tensors, targets in self._loaded(self._validation):
                scores = self._scores(tensors)
                total += float(self._measure(scores, targets)) * len(targets)
                if self._classes:
                    measured += float((scores.argmax(dim=1) == targets).sum())
                else:
                    measured += float(((scores.reshape(-1) - targets) ** 2).sum())
        if self._classes:
            return {"validation_loss": total / rows, "validation_accuracy": measured / rows}
        deviation = self._served.scale[1] if self._served.scale else 1.0
        return {"validation_loss": total / rows, "validation_rmse": deviation * (measured / rows) ** 0.5}

    def _loaded(
        self, rows: _Rows, *, shuffle: torch.Generator | None = None
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        loader = torch.utils.data.DataLoader(
            rows,
            batch_size=self._recipe.batch_size,
            shuffle=shuffle is not None,
            generator=shuffle,
            num_workers=self._workers,
            collate_fn=_tensors,
        )
        for tensors, targets in loader:
            yield [tensor.to(self._device) for tensor in tensors], targets.to(self._device)

    def _scores(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        try:
            scores = self._served.scores(*tensors)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise TrainingError(
                f"{self._recipe.network} fails on a batch made of {shapes}: {type(error).__name__}: {error}"
            ) from error
        rows, outputs = len(tensors[0]), self._served.outputs
        wanted = [(rows, outputs)] if self._classes else [(rows,), (rows, 1)]
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) not in wanted:
            shape = list(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise TrainingError(
                f"{self._recipe.network} gives {shape} for {rows} rows: scores of the shape {list(wanted[-1])} are "
                "needed"
            )
        return scores

    def _measure(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self._classes:
            return self._loss(scores, targets)
        return self._loss(scores.reshape(-1), targets)

    def state(self) -> bytes:
        stream = io.BytesIO()
        torch.save({"network": self._served.state_dict(), "optimizer": self._optimizer.state_dict()}, stream)
        return stream.getvalue()

    def restore(self, state: bytes) -> None:
        stored = torch.load(io.BytesIO(state), map_location=self._device, weights_only=True)
        self._served.load_state_dict(stored["network"])
        self._optimizer.load_state_dict(stored["optimizer"])


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
