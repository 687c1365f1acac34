"""Typed Kubeflow Pipelines steps, a folder per stage and a file per step.

Components load when first used: a running step imports this package, and must not declare components there.
"""

import importlib
from typing import Any, Final

_STAGES: Final = {
    "data": ("load_data", "load_images", "split_data"),
    "validate": ("validate_data", "evaluate_model", "validate_model"),
    "train": ("train_sklearn", "train_torch", "train_tensorflow"),
    "register": ("register_model",),
    "package": ("package_model", "package_onnx", "package_torchserve", "package_tensorflow", "package_triton"),
    "deploy": (
        "deploy_model",
        "deploy_kserve",
        "delete_kserve",
        "deploy_seldon",
        "delete_seldon",
        "deploy_seldon_v2",
        "delete_seldon_v2",
        "deploy_torchserve",
        "delete_torchserve",
        "deploy_tfserving",
        "delete_tfserving",
        "update_torchserve",
        "promote_torchserve",
        "unregister_torchserve",
        "promote_model",
        "rollback_model",
        "deploy_inference_graph",
        "delete_inference_graph",
        "deploy_llm_inference_service",
        "delete_llm_inference_service",
        "predict_endpoint",
    ),
    "monitor": ("monitor_endpoint", "compare_revisions", "conclude_experiment"),
}
_STAGE_OF: Final = {name: stage for stage, names in _STAGES.items() for name in names}

__all__ = ["get", "names", "stage"]


def names() -> tuple[str, ...]:
    """Names of all components, in the order of a model's life."""
    return tuple(name for members in _STAGES.values() for name in members)


def stage(name: str) -> str:
    """The stage that a component belongs to.

    Raises:
        KeyError: If there is no such component.
    """
    return _STAGE_OF[name]


def get(name: str) -> Any:
    """The component of that name.

    Raises:
        KeyError: If there is none.
    """
    return getattr(importlib.import_module(f"{__name__}.{_STAGE_OF[name]}.{name}"), name)


def __getattr__(name: str) -> Any:
    if name not in _STAGE_OF:
        raise AttributeError(f"module {__name__!r} has no component {name!r}")
    return get(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_STAGE_OF])
