"""Load a table."""

from typing import List, NamedTuple, Optional

from kfp.dsl import Dataset, Output

from longshore.authoring import component


@component(cached=False)
def load_data(
    data: str,
    dataset: Output[Dataset],
    format: Optional[str] = None,  # noqa: A002 - the field's word
    separator: Optional[str] = None,
    encoding: Optional[str] = None,
    na_values: Optional[List[str]] = None,
    date_columns: Optional[List[str]] = None,
) -> NamedTuple("Outputs", [("rows", int), ("columns", int), ("digest", str)]):
    """Read a CSV or Parquet table from any URI and keep it as a typed data set.

    Never cached: the same URI can hold new rows.

    Args:
        data: Path or URI of the table: local, ``s3://``, ``gs://``, ``https://`` or any other that fsspec knows.
        dataset: The table as Parquet, its types settled.
        format: ``csv`` or ``parquet``; by default told from the name and the content.
        separator: Column separator of a CSV file; by default found out.
        encoding: Text encoding of a CSV file; by default found out.
        na_values: Further words that stand for a missing value.
        date_columns: Columns to read as dates beyond those that are recognised.

    Returns:
        rows: Number of rows.
        columns: Number of columns.
        digest: SHA-256 of the table's content.

    Raises:
        StorageError: If there is nothing to read at the URI.
        DataError: If it is no table, has no rows, or has empty or repeated column names.
    """
    from longshore.training import read_table, table_digest, write_table

    frame = read_table(
        data,
        format=format,
        separator=separator,
        encoding=encoding,
        na_values=na_values or (),
        date_columns=date_columns or (),
    )
    write_table(frame, dataset.path)
    digest = table_digest(frame)
    dataset.metadata.update(source=data, rows=len(frame), columns=list(frame.columns), digest=digest)
    return len(frame), frame.shape[1], digest
