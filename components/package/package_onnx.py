"""Take over an ONNX model that was trained elsewhere."""

from typing import Any, List, NamedTuple, Optional

from kfp.dsl import Dataset, Input, Model, Output

from longshore.authoring import component


@component
def package_onnx(
    onnx: Input[Model],
    examples: Input[Dataset],
    model: Output[Model],
    target: str,
    columns: Optional[List[str]] = None,
    classes: Optional[List[Any]] = None,
) -> NamedTuple("Outputs", [("task", str), ("digest", str)]):
    """Make an ONNX file a model like those that are trained here: with a card, a digest and a baseline for drift.

    What it takes is told by the file's inputs, what it gives by what it answers for the examples. From there on it is
    validated, registered and deployed as any other.

    Args:
        onnx: The file, or a directory with one; an importer's artifact, say.
        examples: Table of rows that the model takes, the training data at best.
        model: Directory with the model and its card.
        target: What is predicted. If the table has that column, the classes are read off it.
        columns: Columns of a model that takes them all in one tensor, in its order; by default all but the target.
        classes: Labels in the order of the model's scores, where neither the file nor the target column tells them.

    Returns:
        task: ``classification`` or ``regression``.
        digest: SHA-256 of the model directory.

    Raises:
        ConfigError: If the classes are needed and not given, or do not fit what the model gives.
        DataError: If the table does not have the columns or values that the model takes.
        ModelError: If the file cannot be loaded, or takes or gives what is no rows of columns.
    """
    from pathlib import Path

    from longshore.artifacts import write_model
    from longshore.packaging import save_onnx
    from longshore.spec import ModelSource
    from longshore.training import describe_onnx, read_dataset, read_onnx

    content = read_onnx(Path(onnx.path))
    card = describe_onnx(content, read_dataset(examples.path), target=target, columns=columns, classes=classes)
    digest = save_onnx(Path(model.path), content, card)
    source = ModelSource(uri=model.uri, format=card.format, name="model", digest=digest)
    write_model(model, source, task=card.task, estimator=card.estimator, rows=card.rows, data_digest=card.data_digest)
    return card.task, digest
