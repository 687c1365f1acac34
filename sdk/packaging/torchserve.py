"""What TorchServe loads: a model store with an archive, and its ``config.properties``.

The package is laid out as KServe's TorchServe runtime wants it, ``config/config.properties`` and ``model-store/``,
which suits TorchServe by itself as well. It is a model directory of its own, with the model's card and digests, so that
whatever deploys it has example rows to ask for.

Sources: github.com/pytorch/serve (docs/configuration.md, docs/README.md of model-archiver; v0.12.0), github.com/kserve
(config/runtimes/kserve-torchserve.yaml, docs of the PyTorch runtime).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from longshore import storage
from longshore.errors import InvalidValue, ModelError
from longshore.packaging.archive import handler_of, inspect_archive, make_archive, unpack_model
from longshore.packaging.card import ModelCard
from longshore.packaging.model import checked_file, directory_digest, read_card, save_files, store, verify
from longshore.spec import ModelSource
from longshore.spec.checks import check_choice, check_range

__all__ = [
    "ADDRESSES",
    "CONFIG_FILE",
    "FORMAT",
    "LAYOUTS",
    "STORE",
    "Workers",
    "config_properties",
    "model_config",
    "model_within",
    "package_torchserve",
    "properties_text",
]

FORMAT: Final = "torchserve"
"""Format of a package."""

LAYOUTS: Final = ("standalone", "kserve")

CONFIG_FILE: Final = "config/config.properties"
STORE: Final = "model-store"

ADDRESSES: Final[Mapping[str, Mapping[str, str]]] = {
    "standalone": {
        "inference_address": "http://127.0.0.1:8080",
        "management_address": "http://127.0.0.1:8081",
        "metrics_address": "http://127.0.0.1:8082",
        "grpc_inference_address": "127.0.0.1",
        "grpc_inference_port": "7070",
        "grpc_management_address": "127.0.0.1",
        "grpc_management_port": "7071",
    },
    # its wrapper calls TorchServe at 8085, sends no token, and is what the network sees
    "kserve": {
        "inference_address": "http://0.0.0.0:8085",
        "management_address": "http://0.0.0.0:8085",
        "metrics_address": "http://0.0.0.0:8082",
        "grpc_inference_port": "7070",
        "grpc_management_port": "7071",
    },
}
"""Where TorchServe listens; by itself on loopback only, as its own defaults are."""

_BODY_BYTES: Final = 32 * 1024 * 1024
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?\s*([<>=!~].*)?")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The processes that answer for one model.

    Args:
        min_workers: At least so many.
        max_workers: At most so many; None is as many as at least.
        batch_size: Requests that a worker answers together. KServe's envelopes hand on the first only: 1 with them.
        max_batch_delay_seconds: How long a request waits for others.
        response_timeout_seconds: A worker that takes longer is ended and started anew.
        startup_timeout_seconds: Time to load the model.
        queue_size: Requests that may wait; more are answered with 503.
    """

    min_workers: int = 1
    max_workers: int | None = None
    batch_size: int = 1
    max_batch_delay_seconds: float = 0.01
    response_timeout_seconds: int = 120
    startup_timeout_seconds: int = 120
    queue_size: int = 100

    def __post_init__(self) -> None:
        for name in ("min_workers", "batch_size", "response_timeout_seconds", "startup_timeout_seconds", "queue_size"):
            check_range(f"Workers.{name}", getattr(self, name), 1)
        if self.max_workers is not None:
            check_range("Workers.max_workers", self.max_workers, self.min_workers)
        if not 0 <= self.max_batch_delay_seconds <= 60:
            raise InvalidValue("Workers.max_batch_delay_seconds", self.max_batch_delay_seconds, "use 0 to 60 seconds")

    def described(self) -> dict[str, int]:
        """As TorchServe has it, in the model's YAML and in ``models`` of its properties."""
        return {
            "minWorkers": self.min_workers,
            "maxWorkers": self.max_workers or self.min_workers,
            "batchSize": self.batch_size,
            "maxBatchDelay": round(self.max_batch_delay_seconds * 1000),
            "responseTimeout": self.response_timeout_seconds,
            "startupTimeout": self.startup_timeout_seconds,
        }


def model_config(workers: Workers, digest: str) -> str:
    """The model's configuration in its archive, YAML.

    Args:
        workers: Its workers.
        digest: Digest of the model directory, which the handler checks.
    """
    content = {**workers.described(), "jobQueueSize": workers.queue_size, "handler": {"digest": digest}}
    return str(yaml.safe_dump(content, sort_keys=True))


def properties_text(properties: Mapping[str, Any]) -> str:
    """A file as Java reads properties.

    Args:
        properties: Values by key; mappings become JSON, truths ``true`` and ``false``.
    """
    return "".join(f"{_escaped(key, key=True)}={_escaped(_plain(value))}\n" for key, value in properties.items())


def _plain(value: Any) -> str:
    if isinstance(value, (Mapping, bool)):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _escaped(text: str, *, key: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    if key:
        escaped = re.sub(r"([ :=#!])", r"\\\1", escaped)
    elif escaped.startswith(" "):
        escaped = "\\" + escaped
    # Java reads such a file as Latin-1, with what is beyond it in units of UTF-16
    data = escaped.encode("utf-16-be")
    units = [int.from_bytes(data[start : start + 2]) for start in range(0, len(data), 2)]
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)


def config_properties(
    models: Mapping[str, Mapping[str, str]],
    workers: Workers,
    *,
    layout: str = "standalone",
    model_store: str = "/home/model-server/model-store",
    defaults: Mapping[str, str] | None = None,
    **changes: Any,
) -> str:
    """TorchServe's ``config.properties``.

    Args:
        models: File of the archive by version, by name of the model.
        workers: Their workers.
        layout: One of :data:`LAYOUTS`: TorchServe by itself, or inside KServe's runtime.
        model_store: Directory with the archives, where TorchServe runs.
        defaults: The version that is asked where none is named, by model; the highest, if it is not said.
        **changes: Further properties, and others for those that are here; None leaves one out.
    """
    check_choice("layout", layout, LAYOUTS)
    described = {
        name: {
            version: {
                "defaultVersion": version == (defaults or {}).get(name, max(versions, key=int)),
                "marName": file,
                **workers.described(),
            }
            for version, file in versions.items()
        }
        for name, versions in models.items()
    }
    properties: dict[str, Any] = {
        **ADDRESSES[layout],
        "model_store": "/mnt/models/model-store" if layout == "kserve" else model_store,
        "metrics_mode": "prometheus",
        "enable_metrics_api": True,
        "enable_envvars_config": True,
        "job_queue_size": workers.queue_size,
        "max_request_size": _BODY_BYTES,
        "max_response_size": _BODY_BYTES,
        "default_response_timeout": workers.response_timeout_seconds,
        "default_startup_timeout": workers.startup_timeout_seconds,
        "install_py_dep_per_model": False,
    }
    if layout == "kserve":
        count = sum(len(versions) for versions in models.values())
        snapshot = {"name": "startup.cfg", "modelCount": count, "models": described}
        properties |= {
            "NUM_WORKERS": 1,
            "number_of_netty_threads": 4,
            "disable_token_authorization": True,
            "model_snapshot": snapshot,
        }
    else:
        properties |= {
            "load_models": ",".join(file for versions in models.values() for file in versions.values()),
            "models": described,
        }
    properties |= changes
    return properties_text({key: value for key, value in properties.items() if value is not None})


def package_torchserve(
    source: ModelSource,
    repository: str,
    *,
    name: str,
    version: str,
    workers: Workers | None = None,
    layout: str = "standalone",
    requirements: Sequence[str] = (),
    check: Callable[[Path], object] | None = None,
) -> ModelSource:
    """Package a model for TorchServe, and store it in a repository, ``<repository>/<name>/<version>``.

    Args:
        source: The model, of any format that longshore loads; its digest is checked where it has one.
        repository: Path or URI of the repository; one of its own, as a version is never overwritten.
        name: Name that the model gets.
        version: Version that it gets, a string of digits.
        workers: Its workers.
        layout: One of :data:`LAYOUTS`.
        requirements: What TorchServe is to install for this model when it loads it, such as longshore itself, where its
            image does not have it.
        check: Given the package, raises an error if it is not to be stored.

    Returns:
        The package, of format ``torchserve``.

    Raises:
        DigestMismatch: If the files are not those that were recorded.
        InvalidValue: If an argument is not valid.
        MissingExtra: If torch-model-archiver is not installed.
        ModelError: If the model cannot be packaged, or other content is stored under that version.
        StorageError: If the source cannot be read or the repository cannot be written.
    """
    workers = workers or Workers()
    check_choice("layout", layout, LAYOUTS)
    for requirement in requirements:
        if not _REQUIREMENT.fullmatch(requirement):
            raise InvalidValue(
                "requirements", requirement, "use names of packages with versions, such as 'numpy==2.4.6'"
            )
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        local = storage.fetch_directory(source.uri, Path(scratch))
        verify(local, source.digest)
        card, package = read_card(local), Path(scratch, "package")
        archive = f"{name}-{version}.mar"

        def write(work: Path) -> None:
            (work / "config").mkdir()
            (work / STORE).mkdir()
            text = config_properties(
                {name: {version: archive}}, workers, layout=layout, install_py_dep_per_model=bool(requirements)
            )
            (work / CONFIG_FILE).write_text(text, encoding="ascii")
            _archive(local, work / STORE / archive, card, name, version, workers, requirements)

        save_files(package, write, replace(card, format=FORMAT))
        if check is not None:
            check(package)
        uri, digest = store(package, repository, name=name, version=version)
        return ModelSource(uri=uri, format=FORMAT, name=name, version=version, digest=digest)


def _archive(
    model: Path,
    target: Path,
    card: ModelCard,
    name: str,
    version: str,
    workers: Workers,
    requirements: Sequence[str],
) -> None:
    make_archive(
        model,
        target,
        name=name,
        version=version,
        handler=handler_of(card.signature),
        config=model_config(workers, directory_digest(model)),
        requirements=requirements,
    )
    # what TorchServe will unpack is looked at once more
    inspect_archive(target)


def model_within(package: Path, card: ModelCard, scratch: Path) -> Path:
    """The model directory that lies in a package; of what is no such package, itself.

    Args:
        package: A package, or a model directory.
        card: Its card.
        scratch: A folder for what is unpacked.

    Raises:
        DigestMismatch: If the archive is not the one that the card says.
        ModelError: If there is not one model of longshore's in it.
    """
    if card.format != FORMAT:
        return package
    archives = [name for name in card.files if name.endswith(".mar")]
    if len(archives) != 1:
        raise ModelError(f"{package} holds {len(archives)} archives: only TorchServe knows which of them to ask")
    archive = scratch / Path(archives[0]).name
    archive.write_bytes(checked_file(package, card, archives[0]))
    return unpack_model(archive, scratch / "unpacked")
