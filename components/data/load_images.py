"""Load pictures."""

from typing import NamedTuple, Optional

from kfp.dsl import Dataset, Output

from longshore.authoring import component


@component(cached=False)
def load_images(
    data: str,
    dataset: Output[Dataset],
    label: Optional[str] = "label",
) -> NamedTuple("Outputs", [("rows", int), ("digest", str)]):
    """Read pictures from a folder or an archive as a table: a row for each, with its folder's name as the label.

    Never cached: the same URI can hold new pictures.

    Args:
        data: Path or URI of a folder, searched with its subfolders, or of a ``.zip``, ``.tar`` or ``.tar.gz``.
        dataset: The table: ``file``, ``image`` (the files' bytes) and the label.
        label: Name of the column with the folder's name; null for no such column.

    Returns:
        rows: Number of pictures.
        digest: SHA-256 of the table's content.

    Raises:
        StorageError: If there is nothing to read at the URI.
        DataError: If there are no pictures, a file is none, or one that needs a label lies in no folder.
    """
    from longshore.training import read_images, table_digest, write_table

    frame = read_images(data, label=label)
    write_table(frame, dataset.path)
    digest = table_digest(frame)
    dataset.metadata.update(source=data, rows=len(frame), columns=list(frame.columns), digest=digest)
    return len(frame), digest
