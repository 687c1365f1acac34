"""Training with PyTorch: a table with pictures and texts in, a network that serves without its author's code out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from longshore.errors import ConfigError, MissingExtra, TrainingError
from longshore.packaging.card import Feed
from longshore.packaging.feeds import load_tokenizer
from longshore.packaging.model import TOKENIZER_FILE
from longshore.training.examples import Examples, make_examples
from longshore.training.loop import run_epochs
from longshore.training.networks import Recipe, TrainedNetwork, build_network, network_card
from longshore.training.tensors import Batches, plan_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["train_torch"]

_NETWORK: Final = "longshore.training.torch_modules.Network"
_OPTIMIZER: Final = "torch.optim.AdamW"
_LOSSES: Final = {"classification": "torch.nn.CrossEntropyLoss", "regression": "torch.nn.MSELoss"}
_FEATURES: Final = "features"
_PAD, _UNKNOWN = "[PAD]", "[UNK]"

_log = logging.getLogger(__name__)


def train_torch(
    frame: pd.DataFrame,
    *,
    target: str,
    network: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    task: str = "auto",
    epochs: int = 20,
    batch_size: int = 64,
    patience: int | None = 5,
    optimizer: str | None = None,
    optimizer_parameters: Mapping[str, Any] | None = None,
    loss: str | None = None,
    seed: int = 0,
    exclude: Sequence[str] = (),
    text_column: str | None = None,
    text_length: int = 128,
    vocabulary_size: int = 20_000,
    image_size: Sequence[int] | None = None,
    validation: pd.DataFrame | None = None,
    validation_share: float = 0.1,
    save_as: str = "pt2",
    checkpoints: str | None = None,
    source: Path | None = None,
    source_digest: str | None = None,
    loader_workers: int = 0,
) -> TrainedNetwork:
    """Train a network on columns, pictures and texts.

    The network gives scores: one for each class before any softmax, or one number. It is called with one tensor if the
    data are of one kind, else with a keyword argument for each: ``features`` (``float32`` ``[rows, features]``, scaled
    and without gaps), ``image`` (``float32`` from 0 to 1, ``[rows, channels, height, width]``) and ``text`` (``int64``
    token ids ``[rows, length]``, 0 for none).

    On a processor, the same data, arguments, seed and number of threads give the same network, whether training was
    resumed or not, if the network's own operations are deterministic.

    Args:
        frame: The table; rows without a target are left out.
        target: Column to be predicted.
        network: Import path of a class or function that gives a ``torch.nn.Module``; by default a small one for any
            data. Of its arguments, ``outputs``, ``features``, ``image_shape`` (channels, height, width),
            ``vocabulary`` and ``length`` are given by what is known of the data.
        parameters: Its other arguments.
        task: ``classification``, ``regression``, or ``auto`` to tell it from the target.
        epochs: At most so many passes over the training rows.
        batch_size: Rows that the weights are changed after.
        patience: It stops after so many epochs without a lower loss on the validation rows; None never stops it.
        optimizer: Import path of the optimizer's class; AdamW by default.
        optimizer_parameters: Its arguments, such as ``{"lr": 0.01}``.
        loss: Import path of the loss, a class that takes no arguments or a function of scores and targets; cross
            entropy or the mean squared error (of scaled targets) by default.
        seed: Seed of everything random.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        text_length: So many words of each are read.
        vocabulary_size: So many of the most frequent words are known.
        image_size: Height and width that pictures are scaled to, and channels; by default as the pictures are.
        validation: Rows to stop by; by default a part of the table.
        validation_share: That part.
        save_as: ``pt2`` (a program of torch.export), ``torchscript`` or ``onnx``.
        checkpoints: Path or URI of a directory where the state after each epoch is kept, and from where the same
            training is resumed; None keeps none.
        source: The user's code, with the network in it: a Python file, or a folder or archive of them.
        source_digest: What it has to be.
        loader_workers: Processes that prepare batches beside the one that trains.

    Raises:
        ConfigError: If an argument is not valid.
        DataError: If there is nothing to learn from, or a picture is none.
        DigestMismatch: If the source is not what it should be.
        MissingExtra: If PyTorch is not installed.
        TrainingError: If the network cannot be imported, built, trained or exported.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("train_torch", "torch", "torch") from error
    from longshore.training.torch_export import EXPORTS, export
    from longshore.training.torch_learner import TorchLearner
    from longshore.training.torch_modules import Served

    if save_as not in EXPORTS:
        raise ConfigError(f"save_as = {save_as!r} is not known: use one of {', '.join(EXPORTS)}")
    examples = make_examples(
        frame,
        target=target,
        task=task,
        seed=seed,
        exclude=exclude,
        text_column=text_column,
        image_size=image_size,
        validation=validation,
        validation_share=validation_share,
    )
    recipe = Recipe(
        network=network or _NETWORK,
        parameters=parameters or {},
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        optimizer=optimizer or _OPTIMIZER,
        optimizer_parameters=optimizer_parameters or {},
        loss=loss or _LOSSES[examples.signature.task],
        seed=seed,
        vocabulary_size=vocabulary_size,
        text_length=text_length,
        source=source,
        source_digest=source_digest,
    )
    tokenizer = _tokenizer(examples, recipe)
    tokenize = None if tokenizer is None else load_tokenizer(tokenizer, "the tokenizer")
    feeds = _feeds(examples, recipe)
    training = Batches(examples.training, feeds, examples.signature, tokenize)
    plan = plan_table(examples.table, training(slice(None))[_FEATURES]) if examples.table else None
    kept = recipe.checkpoints(checkpoints, examples, f"torch {torch.__version__}")
    with recipe.builder() as builder:
        torch.manual_seed(seed)
        outputs = len(examples.signature.classes or (0,))
        facts = {
            "outputs": outputs,
            "features": plan.width if plan else 0,
            **_picture_and_text_facts(feeds, tokenizer),
        }
        built = build_network(recipe.network, builder, recipe.parameters, facts)
        if not isinstance(built, torch.nn.Module):
            raise TrainingError(f"{recipe.network} gives a {type(built).__name__}: a torch.nn.Module is needed")
        scale = None if examples.signature.task == "classification" else _scale(examples.training.targets)
        served = Served(built, feeds, plan, outputs=outputs, scale=scale)
        learner = TorchLearner(
            served,
            training,
            Batches(examples.validation, feeds, examples.signature, tokenize),
            recipe,
            loader_workers=loader_workers,
        )
        course = run_epochs(learner, epochs=epochs, patience=patience, seed=seed, checkpoints=kept)
        content = export(served, save_as, feeds, training(slice(0, 2)))
    name, library = EXPORTS[save_as]
    files = {name: content, **({} if tokenizer is None else {TOKENIZER_FILE: tokenizer})}
    card = network_card(
        examples,
        recipe,
        course,
        file_format="onnx" if save_as == "onnx" else "pytorch",
        feeds=feeds,
        libraries=library(),
    )
    return TrainedNetwork(
        card=card,
        course=course,
        write=lambda folder: [(folder / name).write_bytes(content) for name, content in files.items()],
        checkpoints=kept,
        left_out=examples.left_out,
    )


def _feeds(examples: Examples, recipe: Recipe) -> tuple[Feed, ...]:
    feeds = []
    if examples.table:
        names = tuple(column.name for column in examples.table)
        feeds.append(Feed(name=_FEATURES, columns=names, datatype="FP64", shape=(len(names),)))
    if examples.image is not None:
        shape = examples.image.shape or ()
        feeds.append(Feed(name="image", columns=(examples.image.name,), datatype="UINT8", shape=shape))
    if examples.text is not None:
        shape = (recipe.text_length,)
        feeds.append(Feed(name="text", columns=(examples.text.name,), datatype="INT64", shape=shape))
    return tuple(feeds)


def _picture_and_text_facts(feeds: Sequence[Feed], tokenizer: bytes | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for feed in feeds:
        if feed.datatype == "UINT8":
            height, width, channels = feed.shape
            facts["image_shape"] = (channels, height, width)
        if feed.datatype == "INT64" and tokenizer is not None:
            from tokenizers import Tokenizer

            facts |= {"vocabulary": Tokenizer.from_str(tokenizer.decode()).get_vocab_size(), "length": feed.shape[0]}
    return facts


def _scale(targets: np.ndarray) -> tuple[float, float]:
    return float(targets.mean()), float(targets.std()) or 1.0


def _tokenizer(examples: Examples, recipe: Recipe) -> bytes | None:
    """Words of the training rows, in lower case; None where there are no texts."""
    if examples.text is None:
        return None
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    except ModuleNotFoundError as error:
        raise MissingExtra("reading texts", "tokenizers", "torch") from error
    tokenizer = Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=recipe.vocabulary_size, special_tokens=[_PAD, _UNKNOWN], show_progress=False
    )
    texts = [value for value in examples.training.frame[examples.text.name] if isinstance(value, str)]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.enable_truncation(recipe.text_length)
    tokenizer.enable_padding(length=recipe.text_length, pad_id=0, pad_token=_PAD)
    content: str = tokenizer.to_str()
    return content.encode()
