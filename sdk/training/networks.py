"""What training a network takes and gives, whichever framework does it."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from longshore._version import __version__
from longshore.errors import ConfigError, TrainingError
from longshore.packaging.card import Feed, ModelCard
from longshore.packaging.model import save_files
from longshore.spec import to_plain
from longshore.training.common import plain_parameters
from longshore.training.examples import Examples
from longshore.training.imports import import_path
from longshore.training.loop import Checkpoints, Course
from longshore.training.source import source_modules

__all__ = ["Recipe", "TrainedNetwork", "build_network", "build_part", "network_card", "quiet"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Args:
        network: Import path of a class or function that gives the network.
        parameters: Its arguments.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        patience: It stops after so many epochs without a lower loss on the validation rows; None never stops it.
        optimizer: Import path of the optimizer's class.
        optimizer_parameters: Its arguments.
        loss: Import path of the loss.
        seed: Seed of everything random.
        vocabulary_size: At most so many words are known of a text.
        text_length: So many words of a text are read.
        source: The user's code: a Python file, or a folder or archive of them.
        source_digest: What it has to be.
    """

    network: str
    optimizer: str
    loss: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 64
    patience: int | None = 5
    optimizer_parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    vocabulary_size: int = 20_000
    text_length: int = 128
    source: Path | None = None
    source_digest: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "vocabulary_size", "text_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} = {value!r} is not valid: use a whole number of at least 1")
        if self.source is None and self.source_digest is not None:
            raise ConfigError("source_digest is given, and no source")

    @contextmanager
    def builder(self) -> Iterator[Callable[..., Any]]:
        """What gives the network; code of the user's is there as long as the block lasts.

        Raises:
            DigestMismatch: If the source is not what it should be; nothing of it has been run then.
            TrainingError: If there is no such class or function.
        """
        if self.source is None:
            yield import_path("network", self.network, example="mynetworks.small.Network")
            return
        with source_modules(self.source, self.source_digest, self.network):
            yield import_path("network", self.network, example="mynetworks.small.Network")

    def described(self) -> dict[str, Any]:
        """What the card says of it."""
        said = {
            name: getattr(self, name)
            for name in (
                *("epochs", "batch_size", "patience", "optimizer", "optimizer_parameters", "loss"),
                *("vocabulary_size", "text_length"),
            )
        }
        source = {} if self.source_digest is None else {"source": self.source_digest}
        plain: dict[str, Any] = plain_parameters({"parameters": self.parameters, **said, **source})
        return plain

    def checkpoints(self, place: str | None, examples: Examples, library: str) -> Checkpoints | None:
        """Where the state after each epoch is kept, under a name that only the same training has.

        Args:
            place: Path or URI of a directory; None keeps none.
            examples: What is learned from.
            library: The framework and its version.
        """
        if place is None:
            return None
        data = [examples.data_digest, examples.held_out, to_plain(examples.signature)]
        text = json.dumps([self.network, self.described(), self.seed, library, __version__, *data], sort_keys=True)
        return Checkpoints(place, hashlib.sha256(text.encode()).hexdigest()[:32])


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """What training gives.

    Args:
        card: The model's card.
        course: How the epochs went.
        write: Writes the model's files into a folder.
        checkpoints: Where the course was kept.
        left_out: Why each column that was not learned from was left out, by name.
    """

    card: ModelCard
    course: Course
    write: Callable[[Path], object]
    checkpoints: Checkpoints | None
    left_out: Mapping[str, str]

    def save(self, directory: Path) -> str:
        """Write the model directory, and then forget the checkpoints; gives the directory's digest.

        Raises:
            StorageError: If it could not be written.
        """
        digest = save_files(directory, self.write, self.card)
        if self.checkpoints is not None:
            self.checkpoints.clear()
        return digest


def network_card(
    examples: Examples,
    recipe: Recipe,
    course: Course,
    *,
    file_format: str,
    feeds: tuple[Feed, ...],
    libraries: Mapping[str, str],
) -> ModelCard:
    """The card of a trained network.

    Args:
        examples: What it learned from.
        recipe: How.
        course: How it went.
        file_format: What its files are.
        feeds: The tensors that it takes.
        libraries: Versions of the framework's libraries.
    """
    import numpy as np
    import pandas as pd

    return ModelCard(
        format=file_format,
        task=examples.signature.task,
        estimator=recipe.network,
        parameters={**recipe.described(), "best_epoch": course.best},
        seed=recipe.seed,
        signature=examples.signature,
        baseline=examples.baseline,
        example=examples.example,
        data_digest=examples.data_digest,
        rows=examples.rows,
        libraries={
            "python": platform.python_version(),
            "longshore": __version__,
            "numpy": np.__version__,
            "pandas": pd.__version__,
            **libraries,
        },
        feeds=feeds,
    )


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Loggers say nothing below an error as long as the block lasts: what they say is for developers of their own."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def build_network(
    path: str, builder: Callable[..., Any], parameters: Mapping[str, Any], facts: Mapping[str, Any]
) -> Any:
    """What a class or function gives.

    Args:
        path: Its import path, for messages.
        builder: The class or function.
        parameters: Arguments that the user gives.
        facts: What is known of the data. Those that the class or function names as its arguments, and that are not
            given, are handed to it.

    Raises:
        TrainingError: If it does not take an argument, or fails.
    """
    if not callable(builder):
        raise TrainingError(f"network = {path!r} is a {type(builder).__name__}: name a class or a function")
    try:
        arguments: Mapping[str, inspect.Parameter] = inspect.signature(builder).parameters
        open_ended = any(argument.kind is argument.VAR_KEYWORD for argument in arguments.values())
    except ValueError:
        # what is written in C may not say
        arguments, open_ended = {}, True
    if unknown := [name for name in parameters if name not in arguments and not open_ended]:
        close = get_close_matches(unknown[0], arguments, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise TrainingError(
            f"{path} does not take the parameter {unknown[0]!r}: {hint}It takes {', '.join(arguments) or 'none'}"
        )
    known = {name: value for name, value in facts.items() if name in arguments and name not in parameters}
    return build_part(path, builder, {**parameters, **known})


def build_part(path: str, builder: Callable[..., Any], parameters: Mapping[str, Any], *positional: Any) -> Any:
    """What a class or function gives for arguments.

    Raises:
        TrainingError: If it fails.
    """
    try:
        return builder(*positional, **parameters)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in parameters.items())
        raise TrainingError(f"{path}({given}) failed with {type(error).__name__}: {error}") from error
