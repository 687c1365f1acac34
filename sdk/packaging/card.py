"""The model card: what a model directory says about itself, as plain values.

A card is deterministic. It holds no time and no path of the machine that trained the model, so the same data,
parameters and seed give the same card, byte for byte.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from longshore.errors import InvalidValue, ModelError
from longshore.spec import to_plain

__all__ = [
    "MAX_CATEGORIES",
    "SCHEMA_VERSION",
    "Column",
    "FeatureBins",
    "Feed",
    "Kind",
    "Label",
    "ModelCard",
    "Signature",
    "Task",
    "as_text",
    "bin_index",
    "check_image_shape",
    "unix_seconds",
]

Kind = Literal["number", "integer", "boolean", "category", "date", "text", "image"]
Task = Literal["classification", "regression"]
Label = str | int | float | bool

SCHEMA_VERSION: Final = 1
"""Version of the card's layout; a reader refuses newer ones."""

MAX_CATEGORIES: Final = 200
"""A column with more distinct strings than this is text."""

_KINDS: Final[tuple[str, ...]] = get_args(Kind)
_TASKS: Final[tuple[str, ...]] = get_args(Task)
_CHANNELS: Final = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Column:
    """An input column of a model.

    Args:
        name: Name as in the training data.
        kind: What its values are.
        nullable: Whether the training data had missing values in it. Missing values are accepted either way, except
            for pictures.
        categories: The values seen in training, sorted; None for other kinds than ``category``.
        shape: Height and width in pixels, and channels (1 grey, 3 red-green-blue, 4 with transparency), which every
            picture is brought to; None for other kinds than ``image``.
    """

    name: str
    kind: Kind
    nullable: bool
    categories: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidValue("Column.name", self.name, "use a non-empty string")
        if self.kind not in _KINDS:
            raise InvalidValue("Column.kind", self.kind, f"use one of {', '.join(_KINDS)}")
        if (self.kind == "category") != (self.categories is not None):
            raise InvalidValue("Column.categories", self.categories, "give them for the kind 'category', and only then")
        if self.categories is not None and len(self.categories) > MAX_CATEGORIES:
            raise InvalidValue(
                "Column.categories", f"{len(self.categories)} values", f"use at most {MAX_CATEGORIES}, or kind 'text'"
            )
        if (self.kind == "image") != (self.shape is not None):
            raise InvalidValue("Column.shape", self.shape, "give it for the kind 'image', and only then")
        if self.shape is not None:
            check_image_shape("Column.shape", self.shape)


def check_image_shape(field_name: str, shape: Sequence[int]) -> None:
    """Refuse what is not height, width and channels of a picture.

    Raises:
        InvalidValue: If it is not.
    """
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape)
    if len(shape) != 3 or not whole or shape[2] not in _CHANNELS:
        raise InvalidValue(field_name, list(shape), "use height, width and channels (1, 3 or 4), such as [224, 224, 3]")


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a model takes and gives.

    Args:
        inputs: The columns, in the order of the training data.
        task: What is predicted: a class or a number.
        target: Column that was learned.
        classes: Labels in the order of the columns of ``predict_proba``; None for a regression.
        ignored: Columns of the training data that the model does not use; they may be present and are dropped.
    """

    inputs: tuple[Column, ...]
    task: Task
    target: str
    classes: tuple[Label, ...] | None
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise InvalidValue("Signature.task", self.task, f"use one of {', '.join(_TASKS)}")
        names = self.names
        if not names or len(set(names)) != len(names):
            raise InvalidValue("Signature.inputs", names, "name at least one column, and each once")
        if self.target in names:
            raise InvalidValue("Signature.target", self.target, "the target cannot be an input as well")
        if (self.task == "classification") != (self.classes is not None):
            raise InvalidValue("Signature.classes", self.classes, "give them for a classification, and only then")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the input columns, in order."""
        return tuple(column.name for column in self.inputs)


@dataclass(frozen=True, kw_only=True)
class FeatureBins:
    """How the values of one feature were spread in the training data; what drift is measured against.

    Numbers, dates (as Unix seconds, UTC) and pictures (as their mean brightness, from 0 to 255) have
    ``len(edges) + 1`` bins, bin *i* holding ``edges[i - 1] <= value < edges[i]``, and a last one for missing values. So
    has free text, by its length in characters. The other kinds have one bin for each of ``categories``, one for every
    other value, and a last one for missing values.

    Args:
        name: The feature.
        kind: Kind of its column.
        edges: Inner edges, rising; empty for kinds without order.
        categories: Values with a bin of their own; a boolean's are ``False`` and ``True``.
        counts: Training rows per bin.
    """

    name: str
    kind: Kind
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(a >= b for a, b in pairwise(self.edges)):
            raise InvalidValue(f"FeatureBins({self.name}).edges", self.edges, "they must rise")
        if len(self.counts) != self.size:
            raise InvalidValue(f"FeatureBins({self.name}).counts", self.counts, f"{self.size} bins need as many counts")

    @property
    def ordered(self) -> bool:
        """Whether the bins are intervals and not single values."""
        return self.kind in ("number", "integer", "date", "image") or bool(self.edges)

    @property
    def size(self) -> int:
        """Number of bins, the one for missing values included."""
        return len(self.edges) + 2 if self.ordered else len(self.categories) + 2

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds, for people: such as ``< 3.5`` or ``Adelie``."""
        if not self.ordered:
            return (*self.categories, "other", "missing")
        ends = [self._edge_label(edge) for edge in self.edges]
        if not ends:
            return ("any", "missing")
        middle = (f"{low} to {high}" for low, high in pairwise(ends))
        return (f"< {ends[0]}", *middle, f">= {ends[-1]}", "missing")

    def _edge_label(self, edge: float) -> str:
        return datetime.fromtimestamp(edge, UTC).isoformat(" ")[:19] if self.kind == "date" else f"{edge:g}"


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A tensor that a neural network takes, and the columns that it is made of; see :mod:`longshore.packaging.feeds`.

    Args:
        name: Its name in the model's file.
        columns: The columns, in order; one, unless the tensor holds a whole table.
        datatype: ``FP64``, ``INT64``, ``UINT8`` or ``BYTES``, as V2 names them.
        shape: Its dimensions for one row; empty for a single value.
    """

    name: str
    columns: tuple[str, ...]
    datatype: str
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """All that is known of a trained model besides its weights.

    Args:
        format: What the files are, such as ``sklearn``.
        task: What is predicted.
        estimator: Import path of the estimator's class.
        parameters: The arguments it was given; those not named here are its defaults.
        seed: Seed of everything random in training.
        signature: What the model takes and gives.
        baseline: The training data in bins, by feature.
        example: One or two raw rows that the model takes.
        data_digest: Digest of the training data's content.
        rows: Rows trained on.
        libraries: Versions of the libraries that matter to loading the model.
        feeds: The tensors that a neural network takes, in its order; none for models that take tables.
        files: Digest of every other file of the directory, by relative path.
        schema_version: Version of this layout.
    """

    format: str
    task: Task
    estimator: str
    parameters: Mapping[str, Any]
    seed: int
    signature: Signature
    baseline: tuple[FeatureBins, ...]
    example: tuple[Mapping[str, Any], ...]
    data_digest: str
    rows: int
    libraries: Mapping[str, str]
    feeds: tuple[Feed, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name in ("parameters", "libraries", "files"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def to_json(self) -> str:
        """The card as JSON text: keys sorted, so that equal cards give equal text."""
        return json.dumps(to_plain(self), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "model.json") -> ModelCard:
        """Read a card.

        Args:
            text: What :meth:`to_json` gave.
            where: The file, for messages.

        Raises:
            ModelError: If the text is no card, or one of a newer longshore.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ModelError(f"{where} is not JSON ({error}): the model directory is damaged") from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise ModelError(f"{where} is not a longshore model card: it has no schema_version")
        if version > SCHEMA_VERSION:
            raise ModelError(
                f"{where} has schema_version {version}, this longshore reads up to {SCHEMA_VERSION}: upgrade longshore"
            )
        try:
            return cls(**{**content, **_nested(content)})
        except (KeyError, TypeError, AttributeError, InvalidValue) as error:
            raise ModelError(f"{where} is not a valid model card ({type(error).__name__}: {error})") from error


def _nested(content: Mapping[str, Any]) -> dict[str, Any]:
    signature = dict(content["signature"])
    signature["inputs"] = tuple(Column(**_tuples(column)) for column in signature["inputs"])
    return {
        "signature": Signature(**_tuples(signature)),
        "baseline": tuple(FeatureBins(**_tuples(bins)) for bins in content["baseline"]),
        "example": tuple(dict(row) for row in content["example"]),
        "feeds": tuple(Feed(**_tuples(feed)) for feed in content.get("feeds", ())),
    }


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


def as_text(value: Any) -> str:
    """A value as a category: whole numbers read the same however they were stored (``1``, ``1.0`` and ``"1"``)."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def unix_seconds(value: str | date) -> float:
    """Seconds since 1970 of an ISO 8601 text, a date or a datetime; UTC where no zone is given.

    Raises:
        ValueError: If the text is not ISO 8601.
    """
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def bin_index(bins: FeatureBins, value: Any) -> int:
    """The bin that a raw value falls in.

    Args:
        bins: Bins of the value's feature.
        value: A scalar as in a request: number, boolean, string, ISO date; None and NaN are missing. Of a picture,
            its mean brightness.

    Returns:
        Index into ``bins.counts``.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return bins.size - 1
    if bins.ordered:
        measures: Mapping[str, Callable[[Any], float]] = {"date": unix_seconds, "text": len}
        return bisect_right(bins.edges, measures.get(bins.kind, float)(value))
    text = str(bool(value)) if bins.kind == "boolean" else as_text(value)
    return bins.categories.index(text) if text in bins.categories else len(bins.categories)
