"""What TensorFlow Serving reads besides a SavedModel: its configuration files, and requests to warm up with.

A packaged SavedModel lies as the server wants it, ``<repository>/<name>/<version>/saved_model.pb``, so packaging is
copying. The files are messages written as text, by protobuf itself, so that no name can break out of its quotes.

Sources: github.com/tensorflow/serving (tensorflow_serving/config, sources/storage_path, servables/tensorflow,
g3doc/serving_config.md, batching/README.md, g3doc/saved_model_warmup.md).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from longshore import storage
from longshore.errors import InvalidValue, ModelError
from longshore.packaging.model import SAVED_MODEL_FILE, read_card, store, verify
from longshore.spec import ModelSource
from longshore.spec.checks import check_dns_label, check_range, check_uri
from longshore.spec.tfserving import Batching
from longshore.wire.messages import TENSORFLOW_SERVING, message

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BATCHING_FILE",
    "METRICS_PATH",
    "MODELS_FILE",
    "MONITORING_FILE",
    "WARMUP_FILE",
    "Batching",
    "ServedModel",
    "batching_config",
    "config_files",
    "models_config",
    "models_message",
    "monitoring_config",
    "package_tensorflow",
    "warmup_record",
]

MODELS_FILE: Final = "models.config"
BATCHING_FILE: Final = "batching.config"
MONITORING_FILE: Final = "monitoring.config"
WARMUP_FILE: Final = "assets.extra/tf_serving_warmup_requests"
METRICS_PATH: Final = "/monitoring/prometheus/metrics"

_LABEL: Final = re.compile(r"\w[\w-]*", re.ASCII)
_TYPES: Final = {"FP64": 2, "UINT8": 4, "BYTES": 7, "INT64": 9}
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model with the versions that are served side by side.

    Args:
        name: Its name in requests.
        base_path: Directory with a directory for each version, where the server runs.
        versions: The versions; empty for the newest ones, whatever is there.
        latest: So many of the newest versions, where none are named. With 1 the old version goes once the new one is
            there, and with it the way back.
        labels: Version by label, such as ``stable`` and ``canary``: names for clients, and no weights.
    """

    name: str
    base_path: str
    versions: tuple[int, ...] = ()
    latest: int = 1
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_dns_label("ServedModel.name", self.name)
        check_uri("ServedModel.base_path", self.base_path)
        check_range("ServedModel.latest", self.latest, 1)
        for version in self.versions:
            check_range("ServedModel.versions", version, 1, _LARGEST)
        if len(set(self.versions)) != len(self.versions):
            raise InvalidValue("ServedModel.versions", self.versions, "name each once")
        for label, version in self.labels.items():
            if not _LABEL.fullmatch(label):
                raise InvalidValue("ServedModel.labels", label, "use letters, digits, '_' and '-'")
            if version not in self.versions:
                raise InvalidValue(
                    f"ServedModel.labels[{label!r}]", version, f"it has to be one of the versions {list(self.versions)}"
                )


def models_config(models: Sequence[ServedModel]) -> str:
    """The file of ``--model_config_file``: all models that are served; any other is unloaded.

    Args:
        models: The models.

    Raises:
        InvalidValue: If a name is there twice.
    """
    return _text(models_message(models))


def models_message(models: Sequence[ServedModel]) -> Any:
    """The same as a message; see :func:`models_config`."""
    config = message(TENSORFLOW_SERVING, "ModelServerConfig")()
    config.model_config_list.SetInParent()
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise InvalidValue("models", names, "name each once")
    for model in models:
        one = config.model_config_list.config.add(
            name=model.name, base_path=model.base_path, model_platform="tensorflow"
        )
        if model.versions:
            one.model_version_policy.specific.versions.extend(model.versions)
        else:
            one.model_version_policy.latest.num_versions = model.latest
        for label, version in sorted(model.labels.items()):
            one.version_labels.add(key=label, value=version)
    return config


def batching_config(batching: Batching) -> str:
    """The file of ``--batching_parameters_file``."""
    config = message(TENSORFLOW_SERVING, "BatchingParameters")()
    config.max_batch_size.value = batching.max_batch_size
    config.batch_timeout_micros.value = round(batching.timeout_seconds * 1_000_000)
    config.max_enqueued_batches.value = batching.max_enqueued_batches
    config.num_batch_threads.value = batching.threads
    config.allowed_batch_sizes.extend(batching.allowed_sizes)
    return _text(config)


def monitoring_config(path: str = METRICS_PATH) -> str:
    """The file of ``--monitoring_config_file``: metrics for Prometheus on the port of REST.

    Args:
        path: Where they are.
    """
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", path):
        raise InvalidValue("path", path, "use a path such as /monitoring/prometheus/metrics")
    config = message(TENSORFLOW_SERVING, "MonitoringConfig")()
    config.prometheus_config.enable = True
    config.prometheus_config.path = path
    return _text(config)


def _text(config: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(config, as_utf8=False))


def config_files(
    models: Sequence[ServedModel], batching: Batching | None = None, metrics_path: str = METRICS_PATH
) -> dict[str, str]:
    """All configuration files, by name.

    Args:
        models: The models.
        batching: How requests are answered together; None for each by itself.
        metrics_path: Where the metrics are.
    """
    files = {MODELS_FILE: models_config(models), MONITORING_FILE: monitoring_config(metrics_path)}
    return files if batching is None else {**files, BATCHING_FILE: batching_config(batching)}


def warmup_record(name: str, tensors: Mapping[str, np.ndarray], datatypes: Mapping[str, str]) -> bytes:
    """A request that the server answers for itself when it loads the model, so that the first client need not wait.

    Args:
        name: Name of the model.
        tensors: The tensors by name.
        datatypes: Their datatypes, as V2 names them.

    Returns:
        A ``PredictionLog``, to be written as a TFRecord to :data:`WARMUP_FILE`.
    """
    from longshore.wire.tensorflow import tensor_fields

    log = message(TENSORFLOW_SERVING, "PredictionLog")()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = name, "serving_default"
    for key, array in tensors.items():
        fields = tensor_fields(_TYPES[datatypes[key]], array.shape, array.reshape(-1).tolist())
        request.inputs.add(key=key, value=fields)
    content: bytes = log.SerializeToString(deterministic=True)
    return content


def package_tensorflow(
    source: ModelSource,
    repository: str,
    *,
    name: str,
    version: str,
    check: Callable[[Path], object] | None = None,
) -> ModelSource:
    """Copy a SavedModel to its place in a repository, ``<repository>/<name>/<version>``.

    The copy appears whole or not at all, which the server, as it looks for new versions, depends on. A version that is
    there already with the same content is left as it is.

    Args:
        source: The model; its digest is checked where it has one.
        repository: Path or URI of the repository.
        name: Name that the model gets.
        version: Version that it gets, a string of digits.
        check: Given the model directory, raises an error if it is not to be stored.

    Raises:
        DigestMismatch: If the files are not those that were recorded.
        ModelError: If it is no SavedModel, or other content is stored under that version.
        StorageError: If the source cannot be read or the repository cannot be written.
    """
    if str(int(version)) != version or int(version) > _LARGEST:
        raise InvalidValue("version", version, "use a whole number without leading zeros")
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        local = storage.fetch_directory(source.uri, Path(scratch))
        verify(local, source.digest)
        card = read_card(local)
        if SAVED_MODEL_FILE not in card.files:
            raise ModelError(
                f"{source.uri} is of format {card.format!r} and has no {SAVED_MODEL_FILE}: TensorFlow Serving takes "
                "what train_tensorflow makes"
            )
        if check is not None:
            check(local)
        uri, digest = store(local, repository, name=name, version=version)
        return replace(source, uri=uri, name=name, version=version, digest=digest)
