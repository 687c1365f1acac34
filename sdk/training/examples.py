"""What a neural network learns from: tables, pictures and texts, divided for training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import numpy as np
import pandas as pd

from longshore.errors import ConfigError, DataError
from longshore.packaging.card import Column, FeatureBins, Signature, Task, check_image_shape
from longshore.packaging.frame import conform
from longshore.packaging.images import image_shape
from longshore.training.columns import column_kind, infer_columns, infer_task, make_bins, require_column, settle_types
from longshore.training.common import (
    as_labels,
    check_target,
    check_task_and_seed,
    classes_of,
    example_rows,
    with_target,
)
from longshore.training.data import table_digest
from longshore.training.splitting import split

__all__ = ["Examples", "Part", "make_examples"]

_BASELINE_PICTURES: Final = 2000
_USE: Final = {"classification": "task='classification'", "regression": "task='regression'"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows for training, or for validation.

    Args:
        frame: The inputs, conformed, but for pictures: they are still the bytes of their files, as thousands of them
            need not fit the memory otherwise.
        targets: Position of each row's class among the classes (``int64``), or its number (``float64``).
    """

    frame: pd.DataFrame
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A table as a network learns from it.

    Args:
        signature: What the model takes and gives.
        training: Rows to learn from.
        validation: Rows to stop by; none if there is no such part.
        baseline: All rows in bins.
        example: Rows for the card.
        data_digest: Digest of the table.
        held_out: Which rows are for validation, as a text.
        rows: Rows with a target.
        rows_without_target: Those that were left out.
        left_out: Why each other column was left out, by name.
    """

    signature: Signature
    training: Part
    validation: Part
    baseline: tuple[FeatureBins, ...]
    example: tuple[Any, ...]
    data_digest: str
    held_out: str
    rows: int
    rows_without_target: int
    left_out: dict[str, str]

    @property
    def image(self) -> Column | None:
        """The column of pictures, if there is one."""
        return next((column for column in self.signature.inputs if column.kind == "image"), None)

    @property
    def text(self) -> Column | None:
        """The column of texts, if there is one."""
        return next((column for column in self.signature.inputs if column.kind == "text"), None)

    @property
    def table(self) -> tuple[Column, ...]:
        """All other columns."""
        return tuple(column for column in self.signature.inputs if column.kind not in ("image", "text"))


def make_examples(
    frame: pd.DataFrame,
    *,
    target: str,
    task: str = "auto",
    seed: int = 0,
    exclude: Sequence[str] = (),
    text_column: str | None = None,
    image_size: Sequence[int] | None = None,
    validation: pd.DataFrame | None = None,
    validation_share: float = 0.1,
) -> Examples:
    """Prepare a table for a network.

    Args:
        frame: The table; rows without a target are left out.
        target: Column to be predicted.
        task: ``classification``, ``regression``, or ``auto`` to tell it from the target.
        seed: Seed of the division.
        exclude: Columns not to learn from.
        text_column: Column of texts to be read word by word.
        image_size: Height and width that pictures are scaled to, and channels; by default as the pictures are.
        validation: Rows to stop by; by default a part of the table.
        validation_share: That part.

    Raises:
        ConfigError: If an argument is not valid.
        DataError: If the table has no rows, no such target or columns, or nothing to learn from.
        TrainingError: If the target does not fit the task.
    """
    check_task_and_seed(task, seed)
    if isinstance(validation_share, bool) or not 0 <= validation_share < 1:
        raise ConfigError(f"validation_share = {validation_share!r} is not valid: use a share from 0 and below 1")
    table = settle_types(frame)
    labelled = with_target(table, target)
    settled = infer_task(labelled[target]) if task == "auto" else cast("Task", task)
    check_target(labelled[target], settled, f"task is {settled!r}", use=cast("Any", _USE))
    columns, left_out = _columns(labelled, target, exclude, text_column, image_size)
    labels = as_labels(labelled[target], settled)
    signature = Signature(
        inputs=columns,
        task=settled,
        target=target,
        classes=classes_of(labels, target) if settled == "classification" else None,
        ignored=tuple(left_out),
    )
    training, held_out, told = labelled, labelled.head(0), f"{validation_share} {seed}"
    if validation is not None:
        held_out = with_target(settle_types(validation), target)
        told = table_digest(held_out)
    elif validation_share > 0:
        training, held_out = split(labelled, target=target, test_size=validation_share, seed=seed)
    sample = labelled
    if len(labelled) > _BASELINE_PICTURES and any(column.kind == "image" for column in columns):
        sample = labelled.sample(_BASELINE_PICTURES, random_state=seed)
    counted = conform(signature, sample)
    return Examples(
        signature=signature,
        training=_part(training, signature),
        validation=_part(held_out, signature),
        baseline=tuple(make_bins(column, counted[column.name]) for column in columns),
        example=example_rows(signature, counted),
        data_digest=table_digest(table),
        held_out=told,
        rows=len(labelled),
        rows_without_target=len(table) - len(labelled),
        left_out=left_out,
    )


def _columns(
    table: pd.DataFrame,
    target: str,
    exclude: Sequence[str],
    text_column: str | None,
    image_size: Sequence[int] | None,
) -> tuple[tuple[Column, ...], dict[str, str]]:
    pictures = [n for n in map(str, table.columns) if n not in (*exclude, target) and column_kind(table[n]) == "image"]
    if len(pictures) > 1:
        raise DataError(f"there are several columns of pictures ({', '.join(pictures)}): exclude all but one")
    if image_size is not None and not pictures:
        raise ConfigError("image_size is given, and no column holds pictures: load them with load_images")
    special = {name: _image_column(table[name], image_size) for name in pictures}
    if text_column is not None:
        require_column(table, text_column, "text")
        if table[text_column].dtype.kind != "O" or text_column in (*exclude, *pictures, target):
            raise ConfigError(f"text_column = {text_column!r} is not valid: name a column of strings to learn from")
        special[text_column] = Column(name=text_column, kind="text", nullable=bool(table[text_column].isna().any()))
    rest = table.drop(columns=list(special))
    try:
        inferred = infer_columns(rest, target, exclude=exclude, required=not special)
    except DataError as error:
        hint = "" if text_column else ". If one of them holds texts to be read, name it as text_column"
        raise DataError(f"{error}{hint}") from error
    unread = [column.name for column in inferred.columns if column.kind == "text"]
    found = {column.name: column for column in inferred.columns if column.kind != "text"} | special
    if not found:
        raise DataError(f"{', '.join(unread)} hold more than 200 different strings: name one as text_column")
    left_out = inferred.left_out | dict.fromkeys(unread, "it has too many different values for a category")
    return tuple(found[name] for name in map(str, table.columns) if name in found), left_out


def _image_column(series: pd.Series[Any], size: Sequence[int] | None) -> Column:
    shape = None if size is None else tuple(size)
    sizes = dict[tuple[int, int, int], int]()
    for row, content in enumerate(series):
        try:
            if not isinstance(content, bytes):
                raise ValueError("there is none")
            sizes.setdefault(image_shape(content), row)
        except ValueError as error:
            raise DataError(f"the column {series.name!r} should hold a picture in row {row}: {error}") from error
    channels = max(channels for _, _, channels in sizes)
    if shape is not None and len(shape) == 2:
        shape = (*shape, channels)
    if shape is None:
        if len({(height, width) for height, width, _ in sizes}) > 1:
            told = " and ".join(
                f"{width} x {height} in row {row}" for (height, width, _), row in list(sizes.items())[:2]
            )
            raise DataError(
                f"the pictures of {series.name!r} have different sizes, such as {told}: set image_size to the height "
                "and width that all are scaled to, such as [224, 224]"
            )
        height, width, _ = next(iter(sizes))
        shape = (height, width, channels)
    check_image_shape("image_size", shape)
    return Column(name=str(series.name), kind="image", nullable=False, shape=shape)


def _part(table: pd.DataFrame, signature: Signature) -> Part:
    """The rows, checked as a request's would be; pictures have been looked at, and are decoded when they are needed."""
    table = table.reset_index(drop=True)
    pictures = [column.name for column in signature.inputs if column.kind == "image"]
    plain = tuple(column for column in signature.inputs if column.kind != "image")
    targets = _targets(table[signature.target], signature)
    if not plain:
        return Part(frame=table[pictures], targets=targets)
    others = replace(signature, inputs=plain, ignored=(*signature.ignored, *pictures))
    frame = conform(others, table)
    return Part(frame=frame.assign(**{name: table[name] for name in pictures}), targets=targets)


def _targets(target: pd.Series[Any], signature: Signature) -> np.ndarray:
    if signature.classes is None:
        return target.to_numpy(dtype=np.float64)
    labels = as_labels(target, "classification") if len(target) else np.array([])
    places = {label: index for index, label in enumerate(signature.classes)}
    unknown = sorted({str(label) for label in labels.tolist() if label not in places})
    if unknown:
        raise DataError(f"the validation rows have classes that no training row has: {', '.join(unknown[:5])}")
    return np.array([places[label] for label in labels.tolist()], dtype=np.int64)
