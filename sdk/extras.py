"""Which optional dependency brings which package; setup.cfg says in which versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXTRAS", "extra_of"]

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("sklearn", "pandas", "numpy", "pyarrow", "joblib", "pandera", "matplotlib"),
    "registry": ("mlflow", "sqlalchemy", "alembic"),
    "serve": ("fastapi", "uvicorn", "orjson", "prometheus_client", "grpc"),
    "monitor": ("scipy", "prometheus_client"),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "onnx": ("onnxruntime",),
    "torch": ("torch", "tokenizers", "onnxscript", "PIL"),
    "tensorflow": ("tensorflow", "keras"),
    "torchserve": ("ts", "model_archiver"),
    "kserve": ("kserve", "httpx"),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
    "azure": ("adlfs",),
}
"""The packages, as they are imported, that each extra brings."""


def extra_of(module: str) -> str | None:
    """The extra that brings a module, None if none does."""
    top = module.partition(".")[0]
    return next((extra for extra, packages in EXTRAS.items() if top in packages), None)
