"""Making a file of a trained network, and asking it once whether it answers alike."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch

from longshore.errors import MissingExtra, TrainingError
from longshore.packaging.card import Feed
from longshore.packaging.model import EXPORT_FILE, ONNX_FILE, SCRIPT_FILE
from longshore.packaging.network import PROBABILITIES, VALUE
from longshore.packaging.onnx import OnnxFile
from longshore.training.networks import quiet
from longshore.training.torch_modules import Served

__all__ = ["EXPORTS", "export"]

_TOLERANCE: Final = 1e-4


def _torch_version() -> dict[str, str]:
    return {"torch": torch.__version__}


def _onnx_version() -> dict[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


EXPORTS: Final[Mapping[str, tuple[str, Callable[[], dict[str, str]]]]] = {
    "pt2": (EXPORT_FILE, _torch_version),
    "torchscript": (SCRIPT_FILE, _torch_version),
    "onnx": (ONNX_FILE, _onnx_version),
}
"""For each kind of file its name, and the libraries that load it."""


def export(served: Served, save_as: str, feeds: Sequence[Feed], example: Mapping[str, np.ndarray]) -> bytes:
    """The file of a network.

    Args:
        served: The trained network, with what is before and after it.
        save_as: One of :data:`EXPORTS`.
        feeds: The tensors that it takes.
        example: Tensors of two rows.

    Raises:
        MissingExtra: If a library is not installed.
        TrainingError: If it cannot be exported, or the file answers otherwise than the network.
    """
    served = served.to("cpu").eval()
    tensors = tuple(torch.from_numpy(example[feed.name]) for feed in feeds)
    with torch.inference_mode():
        expected = served(*tensors).numpy()
    write, ask = {"pt2": (_export, _ask_export), "torchscript": (_script, _ask_script), "onnx": (_onnx, _ask_onnx)}[
        save_as
    ]
    try:
        with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "onnx_ir"):
            # of what its own parts will no longer do some day
            warnings.simplefilter("ignore")
            content = write(served, feeds, tensors)
            answers = ask(content, feeds, tensors)
    except MissingExtra:
        raise
    except Exception as error:
        raise TrainingError(
            f"the network cannot be saved as {save_as} ({type(error).__name__}: {error}): branches that depend on the "
            "data are the usual reason; try another save_as"
        ) from error
    if not np.allclose(answers, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise TrainingError(
            f"saved as {save_as}, the network answers {answers.tolist()} where it should answer {expected.tolist()}"
        )
    return content


Tensors = tuple[torch.Tensor, ...]


def _program(served: Served, tensors: Tensors) -> Any:
    """The network's program for any number of rows, without where on this machine its author's lines lie."""
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(served, tensors, dynamic_shapes=(tuple({0: rows} for _ in tensors),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _export(served: Served, feeds: Sequence[Feed], tensors: Tensors) -> bytes:  # noqa: ARG001
    stream = io.BytesIO()
    torch.export.save(_program(served, tensors), stream)
    return stream.getvalue()


def _ask_export(content: bytes, feeds: Sequence[Feed], tensors: Tensors) -> Any:  # noqa: ARG001
    module = torch.export.load(io.BytesIO(content)).module()
    with torch.inference_mode():
        # one row is what is asked for most, and a size that was not exported
        parts = [module(*(tensor[row : row + 1] for tensor in tensors)) for row in range(len(tensors[0]))]
    return torch.cat(parts).numpy()


def _script(served: Served, feeds: Sequence[Feed], tensors: Tensors) -> bytes:  # noqa: ARG001
    stream, stripped = io.BytesIO(), io.BytesIO()
    torch.jit.save(torch.jit.trace(served, tensors, check_trace=False), stream)
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(stripped, "w") as kept:
        for entry in archive.infolist():
            # these say where on this machine its author's lines lie
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    return stripped.getvalue()


def _ask_script(content: bytes, feeds: Sequence[Feed], tensors: Tensors) -> Any:  # noqa: ARG001
    module = torch.jit.load(io.BytesIO(content))
    with torch.inference_mode():
        parts = [module(*(tensor[row : row + 1] for tensor in tensors)) for row in range(len(tensors[0]))]
    return torch.cat(parts).numpy()


def _output(served: Served) -> str:
    return PROBABILITIES if served.scale is None else VALUE


def _onnx(served: Served, feeds: Sequence[Feed], tensors: Tensors) -> bytes:
    try:
        import onnxscript  # noqa: F401 - torch itself says less of what is missing
    except ModuleNotFoundError as error:
        raise MissingExtra("save_as='onnx'", "onnxscript", "torch") from error
    program = torch.onnx.export(
        _program(served, tensors),
        dynamo=True,
        verbose=False,
        input_names=[feed.name for feed in feeds],
        output_names=[_output(served)],
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _ask_onnx(content: bytes, feeds: Sequence[Feed], tensors: Tensors) -> Any:
    file = OnnxFile(content, "the exported network")
    (output,) = (tensor.name for tensor in file.outputs)
    names = [feed.name for feed in feeds]
    answers = []
    for row in range(len(tensors[0])):
        arrays = (tensor[row : row + 1].numpy() for tensor in tensors)
        answers.append(file.answer(output, dict(zip(names, arrays, strict=True))))
    return np.concatenate(answers)
