"""PyTorch modules: the network that is trained where none is named, and what is around every network when it serves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from longshore.packaging.card import Feed
from longshore.training.tensors import TablePlan

__all__ = ["Network", "PrepareImage", "PrepareTable", "Served"]

_BOUND = 1e6


class Network(nn.Module):
    """A small network for tables, pictures and texts, together or alone.

    Tables go through two dense layers, pictures through two convolutions and the mean over the whole picture, texts
    through the mean of their tokens' vectors; a dense layer over all of it gives the scores.

    Args:
        outputs: Number of scores.
        features: Values of a row of the table; 0 without one.
        image_shape: Channels, height and width of the pictures; None without any.
        vocabulary: Number of tokens; 0 without texts.
        width: Size of its layers.
        dropout: Share of the values that are left out before the last layer in training.
    """

    def __init__(
        self,
        outputs: int,
        features: int = 0,
        image_shape: Sequence[int] | None = None,
        vocabulary: int = 0,
        width: int = 64,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.table = self.image = self.tokens = None
        parts = 0
        if features:
            self.table = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
            parts += 1
        if image_shape is not None:
            self.image = nn.Sequential(
                nn.Conv2d(image_shape[0], width // 2, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(width // 2, width, 3, padding=1, stride=2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(4 * width, width),
                nn.ReLU(),
            )
            parts += 1
        if vocabulary:
            self.tokens = nn.Embedding(vocabulary, width, padding_idx=0)
            parts += 1
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(parts * width, outputs))

    def forward(
        self,
        first: torch.Tensor | None = None,
        *,
        features: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores ``[rows, outputs]``."""
        if first is not None:
            features, image, text = (
                first if part is not None else None for part in (self.table, self.image, self.tokens)
            )
        seen = []
        if self.table is not None:
            seen.append(self.table(features))
        if self.image is not None:
            seen.append(self.image(image))
        if self.tokens is not None:
            present = torch.ne(text, 0).unsqueeze(-1).to(torch.float32)
            total = (self.tokens(text) * present).sum(dim=1)
            seen.append(total / present.sum(dim=1).clamp(min=1.0))
        return self.head(torch.cat(seen, dim=1))


class PrepareTable(nn.Module):
    """Scales numbers and spreads categories, as its plan says.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: TablePlan) -> None:
        super().__init__()
        self._categories = plan.categories
        self.register_buffer("numbers", torch.tensor(plan.numbers, dtype=torch.int64))
        self.register_buffer("means", torch.tensor(plan.means, dtype=torch.float64))
        self.register_buffer("scales", torch.tensor(plan.scales, dtype=torch.float64))
        self.register_buffer("flagged", torch.tensor(plan.flagged, dtype=torch.int64))
        for place, count in plan.categories:
            self.register_buffer(f"values_{place}", torch.arange(count, dtype=torch.float64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """From ``[rows, columns]`` of 64 bits to ``[rows, plan.width]`` of 32."""
        seen = []
        if len(self.numbers):
            values = (features.index_select(1, self.numbers) - self.means) / self.scales
            missing = torch.isnan(values)
            seen.append(torch.where(missing, torch.zeros_like(values), values).clamp(-_BOUND, _BOUND))
            if len(self.flagged):
                seen.append(missing.index_select(1, self.flagged).to(torch.float64))
        seen += [
            (features[:, place : place + 1] == getattr(self, f"values_{place}")).to(torch.float64)
            for place, _ in self._categories
        ]
        return torch.cat(seen, dim=1).to(torch.float32)


class PrepareImage(nn.Module):
    """Brings pixels from 0 to 255 to values from 0 to 1, with the channels first."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """From ``[rows, height, width, channels]`` to ``[rows, channels, height, width]``."""
        return image.permute(0, 3, 1, 2).to(torch.float32) / 255.0


class Served(nn.Module):
    """A network with what is done before and after it: what a server loads.

    Args:
        network: The network.
        feeds: The tensors that it takes.
        plan: For the tensor that holds a table.
        outputs: Number of its scores.
        scale: Mean and standard deviation of the numbers that a regression learned; None for a classification.
    """

    def __init__(
        self,
        network: nn.Module,
        feeds: Sequence[Feed],
        plan: TablePlan | None,
        *,
        outputs: int,
        scale: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs, self.scale = outputs, scale
        self.prepare = nn.ModuleList()
        self._arguments = []
        for feed in feeds:
            if feed.datatype == "FP64":
                assert plan is not None  # noqa: S101 - a table always has one
                self.prepare.append(PrepareTable(plan))
                self._arguments.append("features")
            elif feed.datatype == "UINT8":
                self.prepare.append(PrepareImage())
                self._arguments.append("image")
            else:
                self.prepare.append(nn.Identity())
                self._arguments.append("text")

    def scores(self, *tensors: torch.Tensor) -> torch.Tensor:
        """What the network itself answers."""
        prepared = [prepare(tensor) for prepare, tensor in zip(self.prepare, tensors, strict=True)]
        if len(prepared) == 1:
            return self.network(prepared[0])
        return self.network(**dict(zip(self._arguments, prepared, strict=True)))

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Probabilities ``[rows, classes]``, or numbers ``[rows]``."""
        scores = self.scores(*tensors)
        if self.scale is None:
            return torch.softmax(scores, dim=1)
        mean, deviation = self.scale
        return scores.reshape(-1).to(torch.float64) * deviation + mean
