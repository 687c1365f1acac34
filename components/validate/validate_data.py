"""Check a table."""

from typing import NamedTuple, Optional

from kfp.dsl import HTML, Artifact, Dataset, Input, Output

from longshore.authoring import component


@component
def validate_data(
    dataset: Input[Dataset],
    report: Output[HTML],
    schema_used: Output[Artifact],
    target: str,
    schema: Optional[str] = None,
) -> NamedTuple("Outputs", [("warnings", int), ("summary", str)]):
    """Check a data set against a schema, given or inferred, and look for what often spoils a model.

    Args:
        dataset: Table to check.
        report: What was found, column by column.
        schema_used: The pandera schema, as YAML: keep it and give it as ``schema`` to hold later data to it.
        target: Column to be predicted; it must be there.
        schema: Path or URI of a pandera schema; by default one is inferred.

    Returns:
        warnings: Number of things worth a look.
        summary: One sentence.

    Raises:
        DataError: If the target is missing or the table breaks the schema; says which columns and values.
    """
    from pathlib import Path

    from longshore.training import read_dataset
    from longshore.validation import validate_table

    result = validate_table(read_dataset(dataset.path), target=target, schema_uri=schema)
    Path(report.path).write_text(result.to_html(), encoding="utf-8")
    Path(schema_used.path).write_text(result.schema, encoding="utf-8")
    result.raise_for_problems()
    return len(result.warnings), result.summary
