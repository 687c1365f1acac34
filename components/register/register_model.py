"""Register a model."""

from typing import NamedTuple, Optional

from kfp.dsl import Input, Metrics, Model, Output

from longshore.authoring import component


@component(cached=False)
def register_model(
    model: Input[Model],
    metrics: Input[Metrics],
    registered: Output[Model],
    name: str,
    registry: Optional[str] = None,
) -> NamedTuple("Outputs", [("name", str), ("version", str)]):
    """Register a model in MLflow as the challenger of its name.

    Args:
        model: The model directory.
        metrics: Scores to keep with the version.
        registered: The same model with its name and version.
        name: Name of the model in the registry.
        registry: MLflow tracking URI; by default a SQLite file on this machine.

    Returns:
        name: Name of the model.
        version: Its version; the one it has already if the same digest was registered before.

    Raises:
        RegistryError: If the registry cannot be reached or refuses.
    """
    import os
    from dataclasses import replace

    from longshore.artifacts import read_model, write_model
    from longshore.registry import Registry

    result = Registry(registry).register(
        replace(read_model(model), name=name),
        metrics={k: v for k, v in metrics.metadata.items() if isinstance(v, (int, float))},
        data_digest=model.metadata.get("data_digest", ""),
        run=os.environ.get("LONGSHORE_RUN") or os.environ.get("KFP_RUN_ID"),
    )
    write_model(registered, result)
    return result.name, result.version or ""
