"""Between the types of :mod:`longshore.spec` and the metadata of Kubeflow artifacts.

The only place that knows the metadata keys. Functions take anything with ``uri``, ``path`` and ``metadata``,
so nothing here imports kfp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from longshore.errors import ConfigError
from longshore.spec import Endpoint, ModelSource, to_plain

if TYPE_CHECKING:
    from longshore.training.networks import TrainedNetwork
    from longshore.validation.curves import RocCurve
    from longshore.validation.evaluate import Confusion

__all__ = [
    "Describable",
    "Described",
    "read_endpoint",
    "read_model",
    "write_classification",
    "write_endpoint",
    "write_model",
    "write_network",
]

_MODEL_KEYS: Final = ("name", "format", "version", "digest")


class Described(Protocol):
    """What is read of a ``kfp.dsl.Artifact``."""

    @property
    def uri(self) -> str:
        """Where the content is."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What is said of it."""
        ...


class Describable(Protocol):
    """What is written of a ``kfp.dsl.Artifact``."""

    uri: str
    metadata: dict[str, Any]


def write_model(artifact: Describable, source: ModelSource, **facts: Any) -> None:
    """Describe a model artifact.

    Args:
        artifact: The artifact; its URI is set to the source's.
        source: What was trained, registered or packaged.
        **facts: Further metadata worth showing in the Kubeflow UI, such as ``task``.
    """
    artifact.uri = source.uri
    for key in _MODEL_KEYS:
        if (value := getattr(source, key)) is not None:
            artifact.metadata[key] = value
    artifact.metadata["framework"] = source.format
    artifact.metadata.update(to_plain(facts))


def write_network(artifact: Describable, metrics: Any, trained: TrainedNetwork, digest: str) -> None:
    """Describe a trained network and what was measured of it.

    Args:
        artifact: The model's artifact.
        metrics: A ``kfp.dsl.Metrics``.
        trained: The network.
        digest: Digest of its directory.
    """
    card, course = trained.card, trained.course
    source = ModelSource(uri=artifact.uri, format=card.format, name="model", digest=digest)
    facts = {"task": card.task, "estimator": card.estimator, "rows": card.rows, "data_digest": card.data_digest}
    write_model(artifact, source, **facts, epochs=len(course.epochs), best_epoch=course.best)
    for name, value in {"epochs": len(course.epochs), "best_epoch": course.best, **course.metrics}.items():
        metrics.log_metric(name, float(value))


def read_model(artifact: Described) -> ModelSource:
    """The model that an artifact describes.

    Raises:
        ConfigError: If the artifact was not made by longshore and lacks the format.
    """
    metadata = artifact.metadata
    if "format" not in metadata:
        raise ConfigError(
            f"the model artifact {artifact.uri} has no 'format' in its metadata: "
            "make it with a longshore train step, or with an importer that sets metadata={'format': 'sklearn'}"
        )
    version = metadata.get("version")
    return ModelSource(
        uri=artifact.uri,
        format=metadata["format"],
        name=metadata.get("name", "model"),
        version=None if version is None else str(version),
        digest=metadata.get("digest"),
    )


def write_endpoint(artifact: Describable, endpoint: Endpoint, **facts: Any) -> None:
    """Describe an endpoint artifact; its URI is the endpoint's URL."""
    artifact.uri = endpoint.url
    artifact.metadata.update(to_plain(endpoint))
    artifact.metadata.update(to_plain(facts))


def read_endpoint(artifact: Described) -> Endpoint:
    """The endpoint that an artifact describes.

    Raises:
        ConfigError: If the artifact does not describe one.
    """
    metadata = artifact.metadata
    try:
        return Endpoint(**{name: metadata[name] for name in Endpoint.__dataclass_fields__ if name in metadata})
    except TypeError as error:
        raise ConfigError(f"the artifact {artifact.uri} does not describe an endpoint: {error}") from error


def write_classification(artifact: Any, confusion: Confusion | None, roc: Sequence[RocCurve]) -> None:
    """Draw a confusion matrix and the first ROC curve in a ``ClassificationMetrics`` artifact.

    Args:
        artifact: A ``kfp.dsl.ClassificationMetrics``; it stays empty for a regression.
        confusion: The matrix, None for a regression.
        roc: ROC curves, none where the model gives no probabilities.
    """
    if confusion is not None:
        artifact.log_confusion_matrix(
            [str(label) for label in confusion.labels], [list(row) for row in confusion.matrix]
        )
    if roc:
        artifact.log_roc_curve(list(roc[0].fpr), list(roc[0].tpr), list(roc[0].thresholds))
