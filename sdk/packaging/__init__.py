"""The model directory: what training writes and every other stage reads.

Names load when first used: reading a card needs neither pandas nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.packaging.arrays import MatrixReader, take_arrays
    from longshore.packaging.bins import array_bin_counts, bin_counts
    from longshore.packaging.card import Column, FeatureBins, Feed, ModelCard, Signature, bin_index
    from longshore.packaging.direct import predict_directly
    from longshore.packaging.frame import columns_to_frame, conform, frame_to_rows, rows_to_frame
    from longshore.packaging.loading import LoadedModel, load_model
    from longshore.packaging.model import (
        directory_digest,
        package_model,
        read_card,
        save_files,
        save_model,
        save_onnx,
        verify,
    )
    from longshore.packaging.tfserving import Batching, ServedModel, config_files, package_tensorflow
    from longshore.packaging.torchserve import Workers, package_torchserve
    from longshore.packaging.triton import TritonOptions, package_triton

_HOME: Final = {
    **dict.fromkeys(("MatrixReader", "take_arrays"), "longshore.packaging.arrays"),
    **dict.fromkeys(
        ("Column", "FeatureBins", "Feed", "ModelCard", "Signature", "bin_index"), "longshore.packaging.card"
    ),
    **dict.fromkeys(("array_bin_counts", "bin_counts"), "longshore.packaging.bins"),
    "predict_directly": "longshore.packaging.direct",
    **dict.fromkeys(("columns_to_frame", "conform", "frame_to_rows", "rows_to_frame"), "longshore.packaging.frame"),
    **dict.fromkeys(("LoadedModel", "load_model"), "longshore.packaging.loading"),
    **dict.fromkeys(
        ("directory_digest", "package_model", "read_card", "save_files", "save_model", "save_onnx", "verify"),
        "longshore.packaging.model",
    ),
    **dict.fromkeys(("Batching", "ServedModel", "config_files", "package_tensorflow"), "longshore.packaging.tfserving"),
    **dict.fromkeys(("Workers", "package_torchserve"), "longshore.packaging.torchserve"),
    **dict.fromkeys(("TritonOptions", "package_triton"), "longshore.packaging.triton"),
}

__all__ = [
    "Batching",
    "Column",
    "FeatureBins",
    "Feed",
    "LoadedModel",
    "MatrixReader",
    "ModelCard",
    "ServedModel",
    "Signature",
    "TritonOptions",
    "Workers",
    "array_bin_counts",
    "bin_counts",
    "bin_index",
    "columns_to_frame",
    "config_files",
    "conform",
    "directory_digest",
    "frame_to_rows",
    "load_model",
    "package_model",
    "package_tensorflow",
    "package_torchserve",
    "package_triton",
    "predict_directly",
    "read_card",
    "rows_to_frame",
    "save_files",
    "save_model",
    "save_onnx",
    "take_arrays",
    "verify",
]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
