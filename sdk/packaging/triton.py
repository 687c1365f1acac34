"""Triton's model repository: a directory for each model, with ``config.pbtxt`` and a directory for each version.

Triton asks the network itself, so there is no predictor in front of it: requests carry the tensors that the card lists
(``feeds``), or, of models that longshore did not train, those of the file.

Sources: github.com/triton-inference-server/server (docs/user_guide/model_configuration.md, model_repository.md),
github.com/triton-inference-server/common (protobuf/model_config.proto).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from longshore import storage
from longshore.errors import ConfigError, InvalidValue
from longshore.packaging.card import ModelCard
from longshore.packaging.model import (
    CARD_FILE,
    ONNX_FILE,
    SCRIPT_FILE,
    TOKENIZER_FILE,
    read_card,
    save_files,
    store,
    verify,
)
from longshore.packaging.network import PROBABILITIES, VALUE
from longshore.packaging.onnx import MAPS, OnnxFile
from longshore.packaging.torchserve import model_within
from longshore.spec import ModelSource
from longshore.spec.checks import check_dns_label, check_range
from longshore.wire.messages import TRITON, message

__all__ = ["CONFIG_FILE", "FORMAT", "TritonOptions", "TritonTensor", "package_triton", "triton_config"]

FORMAT: Final = "triton"
CONFIG_FILE: Final = "config.pbtxt"

_BACKENDS: Final = {"onnx": "onnxruntime", "tensorflow": "tensorflow", "pytorch": "pytorch"}
_BESIDE: Final = frozenset({CARD_FILE, TOKENIZER_FILE})
_ONNX_TYPES: Final = {
    "f2": "FP16",
    "f4": "FP32",
    "f8": "FP64",
    "?": "BOOL",
    "O": "BYTES",
    **{f"{kind}{size}": f"{name}{8 * size}" for kind, name in (("i", "INT"), ("u", "UINT")) for size in (1, 2, 4, 8)},
}


@dataclass(frozen=True, kw_only=True)
class TritonTensor:
    """A tensor that Triton hands in or out.

    Args:
        name: Its name.
        datatype: As V2 names it.
        shape: Its dimensions for one row; -1 where any size fits.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TritonOptions:
    """How Triton runs a model.

    Args:
        max_batch_size: At most so many rows in one call of the model.
        max_queue_delay_seconds: How long a request waits for others; None answers each by itself.
        instances: Copies of the model on each device.
        gpu: Whether they are on the GPUs.
        versions: Versions that are served; the newest, if none are named.
    """

    max_batch_size: int = 64
    max_queue_delay_seconds: float | None = 0.001
    instances: int = 1
    gpu: bool = False
    versions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_range("TritonOptions.max_batch_size", self.max_batch_size, 1)
        check_range("TritonOptions.instances", self.instances, 1)
        if self.max_queue_delay_seconds is not None and not 0 <= self.max_queue_delay_seconds <= 60:
            raise InvalidValue("TritonOptions.max_queue_delay_seconds", self.max_queue_delay_seconds, "use 0 to 60")
        for version in self.versions:
            check_range("TritonOptions.versions", version, 1)


def triton_config(
    name: str,
    backend: str,
    inputs: Sequence[TritonTensor],
    outputs: Sequence[TritonTensor],
    options: TritonOptions | None = None,
) -> str:
    """A model's ``config.pbtxt``.

    Args:
        name: Name of the model, which its directory has to have.
        backend: What runs it, such as ``onnxruntime``.
        inputs: What it takes.
        outputs: What it gives.
        options: How it is run.
    """
    from google.protobuf import text_format

    options = options or TritonOptions()
    config = message(TRITON, "ModelConfig")(name=name, backend=backend, max_batch_size=options.max_batch_size)
    for tensors, described in ((inputs, config.input), (outputs, config.output)):
        for tensor in tensors:
            kind = "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"
            one = described.add(name=tensor.name, data_type=kind, dims=tensor.shape or (1,))
            # a single value for each row has no dimension of its own, which Triton has to be told
            if not tensor.shape:
                one.reshape.SetInParent()
    if options.versions:
        config.version_policy.specific.versions.extend(options.versions)
    else:
        config.version_policy.latest.num_versions = 1
    config.instance_group.add(count=options.instances, kind="KIND_GPU" if options.gpu else "KIND_CPU")
    if options.max_queue_delay_seconds is not None:
        config.dynamic_batching.SetInParent()
        config.dynamic_batching.max_queue_delay_microseconds = round(options.max_queue_delay_seconds * 1_000_000)
    return str(text_format.MessageToString(config, as_utf8=False))


def package_triton(
    source: ModelSource,
    repository: str,
    *,
    name: str,
    version: str,
    options: TritonOptions | None = None,
    check: Callable[[Path], object] | None = None,
) -> ModelSource:
    """Lay a model out for Triton, and store it in a repository, ``<repository>/<name>/<version>``.

    What is stored there is a whole model repository with this one model, as KServe's Triton runtime mounts it.

    Args:
        source: A model of format ``onnx``, ``tensorflow``, or ``pytorch`` saved as TorchScript, or a package for
            TorchServe with such a model in it; its digest is checked where it has one.
        repository: Path or URI of the repository; one of its own, as a version is never overwritten.
        name: Name that the model gets.
        version: Version that it gets, a string of digits.
        options: How it is run.
        check: Given the model directory, raises an error if it is not to be packaged.

    Returns:
        The package, of format ``triton``.

    Raises:
        ConfigError: If Triton has no backend for the model's file.
        DigestMismatch: If the files are not those that were recorded.
        ModelError: If other content is stored under that version.
        StorageError: If the source cannot be read or the repository cannot be written.
    """
    check_dns_label("name", name)
    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        local = storage.fetch_directory(source.uri, Path(scratch))
        verify(local, source.digest)
        local = model_within(local, read_card(local), Path(scratch))
        card, package = read_card(local), Path(scratch, "package")
        if check is not None:
            check(local)
        config = triton_config(name, *_tensors(local, card), options)

        def write(work: Path) -> None:
            (work / name).mkdir()
            (work / name / CONFIG_FILE).write_text(config, encoding="ascii")
            for file, content in _files(local, card).items():
                place = work / name / version / file
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)

        save_files(package, write, replace(card, format=FORMAT))
        uri, digest = store(package, repository, name=name, version=version)
        return ModelSource(uri=uri, format=FORMAT, name=name, version=version, digest=digest)


def _files(model: Path, card: ModelCard) -> Mapping[str, bytes]:
    """The files of a version, under the names that Triton's backends look for."""
    folder = "model.savedmodel/" if card.format == "tensorflow" else ""
    return {f"{folder}{name}": (model / name).read_bytes() for name in card.files if name not in _BESIDE}


def _tensors(model: Path, card: ModelCard) -> tuple[str, list[TritonTensor], list[TritonTensor]]:
    """The backend, and what the model takes and gives."""
    if card.format not in _BACKENDS or (card.format == "pytorch" and SCRIPT_FILE not in card.files):
        kept = f"{card.format} ({', '.join(card.files)})"
        raise ConfigError(
            f"Triton has no backend for {kept}: train it with save_as='onnx' or save_as='torchscript', or export it to "
            "ONNX and take it over with package_onnx"
        )
    if card.format == "onnx" and not card.feeds:
        return _of_file(OnnxFile((model / ONNX_FILE).read_bytes(), str(model / ONNX_FILE)))
    inputs = [TritonTensor(name=feed.name, datatype=feed.datatype, shape=feed.shape) for feed in card.feeds]
    outputs = [TritonTensor(name=VALUE, datatype="FP64", shape=())]
    if (classes := card.signature.classes) is not None:
        outputs = [TritonTensor(name=PROBABILITIES, datatype="FP32", shape=(len(classes),))]
    if card.format == "pytorch":
        # TorchScript has no names, so they go by their places
        inputs = [replace(tensor, name=f"{tensor.name}__{index}") for index, tensor in enumerate(inputs)]
        outputs = [replace(tensor, name=f"{tensor.name}__{index}") for index, tensor in enumerate(outputs)]
    return _BACKENDS[card.format], inputs, outputs


def _of_file(file: OnnxFile) -> tuple[str, list[TritonTensor], list[TritonTensor]]:
    if maps := [tensor.name for tensor in file.outputs if tensor.type == MAPS]:
        raise ConfigError(
            f"the output {maps[0]!r} of the ONNX file is a map, which Triton does not give: export it without (zipmap "
            "off)"
        )

    def described(tensors: Sequence[Any]) -> list[TritonTensor]:
        return [
            TritonTensor(
                name=tensor.name,
                datatype=_ONNX_TYPES[tensor.type],
                shape=tuple(-1 if size is None else size for size in tensor.shape[1:]),
            )
            for tensor in tensors
        ]

    return _BACKENDS["onnx"], described(file.inputs), described(file.outputs)
