"""Divide a table into a training and a test part."""

from typing import NamedTuple, Optional

from kfp.dsl import Dataset, Input, Output

from longshore.authoring import component


@component
def split_data(
    dataset: Input[Dataset],
    train: Output[Dataset],
    test: Output[Dataset],
    target: str,
    method: str = "auto",
    test_size: float = 0.2,
    seed: int = 0,
    time_column: Optional[str] = None,
    group_column: Optional[str] = None,
) -> NamedTuple("Outputs", [("train_rows", int), ("test_rows", int)]):
    """Divide a data set so that the test part tells how a model does on data it has not seen.

    Args:
        dataset: The whole table.
        train: The part to train on.
        test: The part to judge by.
        target: Column to be predicted.
        method: ``random``; ``stratified`` (keeps the shares of the classes); ``time`` (tests on the latest rows);
            ``group`` (no group in both parts); ``auto``: by time or group where such a column is named, else
            stratified where the target is a class with enough rows, else random.
        test_size: Share of rows in the test part, between 0 and 1.
        seed: Seed of the shuffle.
        time_column: Column that orders the rows, for ``time``.
        group_column: Column whose values stay together, for ``group``.

    Returns:
        train_rows: Rows in the training part.
        test_rows: Rows in the test part.

    Raises:
        DataError: If a named column is missing, or a class or group is too small to be divided.
    """
    from longshore.training import read_dataset, split, write_table

    parts = split(
        read_dataset(dataset.path),
        target=target,
        method=method,
        test_size=test_size,
        seed=seed,
        time_column=time_column,
        group_column=group_column,
    )
    for artifact, part in zip((train, test), parts, strict=True):
        write_table(part, artifact.path)
        artifact.metadata.update(rows=len(part))
    return len(parts[0]), len(parts[1])
