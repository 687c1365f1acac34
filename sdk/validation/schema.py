"""Check a table: against a pandera schema, and for what often spoils a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from longshore import page, storage
from longshore.errors import ConfigError, DataError, MissingExtra
from longshore.training.columns import column_kind, infer_task, require_column

if TYPE_CHECKING:
    import pandera.pandas as pa

__all__ = ["DataReport", "Problem", "check_table", "infer_schema", "validate_table"]

_EXAMPLES: Final = 5
_MOSTLY_MISSING: Final = 0.5
_FEW_OF_A_CLASS: Final = 10
_MIXED: Final = (0.05, 0.95)
_NEARLY_EQUAL: Final = 0.9999


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A rule of the schema that the table breaks.

    Args:
        column: The column, None for a rule on the whole table.
        rule: The rule, as pandera writes it.
        count: Values that break it.
        examples: Some of them.
    """

    column: str | None
    rule: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        if self.rule == "column_in_dataframe":
            return f"column {self.examples[0]!r} is missing"
        where = f"column {self.column!r}" if self.column else "the table"
        count, examples = _several(self.count, "value"), ", ".join(self.examples)
        rule, _, rest = self.rule.partition("(")
        if rule == "not_nullable":
            return f"{where} must not have missing values and has {self.count}"
        if rule in ("coerce_dtype", "dtype"):
            return f"{where} has {count} that cannot be {rest.strip(chr(39) + ')')}, such as {examples}"
        if rule == "isin":
            return f"{where} has {count} that the schema does not list: {examples}"
        return f"{where} breaks the rule {self.rule} in {count}, such as {examples}"


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """What a report shows of one column."""

    name: str
    kind: str
    missing: int
    distinct: int
    shown: str


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was found in a table.

    Args:
        rows: Number of rows.
        columns: Facts by column.
        problems: Broken rules: such a table must not be used.
        warnings: Sentences on what is worth a look.
        schema: The schema that it was checked against, as YAML.
        inferred: Whether that schema was made from this very table.
    """

    rows: int
    columns: tuple[ColumnFacts, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    schema: str
    inferred: bool

    @property
    def ok(self) -> bool:
        """Whether the table keeps the schema."""
        return not self.problems

    @property
    def summary(self) -> str:
        """One sentence."""
        against = "its inferred schema" if self.inferred else "the schema"
        verdict = "keeps" if self.ok else f"breaks {_several(len(self.problems), 'rule')} of"
        return f"{self.rows} rows, {len(self.columns)} columns; {verdict} {against}; warnings: {len(self.warnings)}"

    def raise_for_problems(self) -> None:
        """End with an error if the table breaks the schema.

        Raises:
            DataError: Naming every broken rule.
        """
        if self.problems:
            raise DataError(f"the table breaks the schema: {'; '.join(map(str, self.problems))}")

    def to_html(self) -> str:
        """A page to read."""
        status = page.badge("keeps the schema", "good") if self.ok else page.badge("breaks the schema", "bad")
        tiles = [("rows", f"{self.rows:,}"), ("columns", str(len(self.columns))), ("warnings", str(len(self.warnings)))]
        problems = (
            page.section("Broken rules", page.note_list([str(p) for p in self.problems])) if self.problems else ""
        )
        warnings = page.section("Worth a look", page.note_list(self.warnings)) if self.warnings else ""
        rows = [
            [page.escape(c.name), c.kind, _share(c.missing, self.rows), f"{c.distinct:,}", page.escape(c.shown)]
            for c in self.columns
        ]
        columns = page.section(
            "Columns", page.table(["column", "kind", "missing", "distinct", "values"], rows, numbers=[2, 3])
        )
        return page.page("Data validation", f"<p>{status}</p>", page.tiles(tiles), problems, warnings, columns)


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _share(part: int, whole: int) -> str:
    return "0" if part == 0 else f"{part:,} ({part / whole:.0%})"


def validate_table(frame: pd.DataFrame, *, target: str, schema_uri: str | None = None) -> DataReport:
    """Check a table against a stored schema, or one inferred from it.

    Args:
        frame: A table whose column types are settled.
        target: Column to be predicted.
        schema_uri: Path or URI of a pandera schema in YAML.

    Raises:
        DataError: If the table has no such target.
        StorageError: If the schema cannot be read.
        ConfigError: If it is no pandera schema.
    """
    schema = None
    if schema_uri is not None:
        with storage.open_read(schema_uri) as stream:
            schema = _parse(stream.read().decode("utf-8", "replace"), schema_uri)
    return check_table(frame, target=target, schema=schema)


def _pandera() -> Any:
    try:
        import pandera.pandas as pandera
    except ImportError as error:
        raise MissingExtra("checking a table", "pandera", "train") from error
    return pandera


def _parse(text: str, where: str) -> pa.DataFrameSchema:
    pandera = _pandera()
    try:
        schema: pa.DataFrameSchema = pandera.DataFrameSchema.from_yaml(text)
        if not (schema.columns or schema.checks or schema.unique):
            raise ValueError("it holds no rule, so every table would pass")
    except Exception as error:  # any fault in the text surfaces as whatever pandera stumbles over
        raise ConfigError(f"{where} is no pandera schema in YAML: {type(error).__name__}: {error}") from error
    return schema


def infer_schema(frame: pd.DataFrame) -> pa.DataFrameSchema:
    """A schema that the table keeps: column types, whether values may be missing, and the values of categories.

    It sets no bounds for numbers: the extremes of one table are no rule for the next.
    """
    columns = {str(name): _column(frame[name]) for name in frame.columns}
    schema: pa.DataFrameSchema = _pandera().DataFrameSchema(columns, coerce=True)
    return schema


def _column(series: pd.Series[Any]) -> Any:
    pandera = _pandera()
    kind = column_kind(series)
    nullable = bool(series.isna().any())
    if kind in ("number", "integer"):
        # a whole number that may be missing is a float in pandas
        return pandera.Column("float64", nullable=nullable)
    if kind == "boolean":
        # numpy's bool would take any text for True
        return pandera.Column("boolean", nullable=nullable)
    if kind == "date":
        return pandera.Column(str(series.dtype), nullable=nullable)
    checks = []
    if kind == "category" and series.notna().any():
        checks.append(pandera.Check.isin(sorted(map(str, series.dropna().unique()))))
    return pandera.Column("object", checks, nullable=nullable)


def check_table(frame: pd.DataFrame, *, target: str, schema: pa.DataFrameSchema | None = None) -> DataReport:
    """Check a table against a schema, by default an inferred one, and look for what often spoils a model."""
    require_column(frame, target, "target")
    used = infer_schema(frame) if schema is None else schema
    return DataReport(
        rows=len(frame),
        columns=tuple(_facts(frame[name]) for name in frame.columns),
        problems=tuple(_problems(frame, used)),
        warnings=tuple(_warnings(frame, target)),
        schema=str(used.to_yaml()),
        inferred=schema is None,
    )


def _facts(series: pd.Series[Any]) -> ColumnFacts:
    present = series.dropna()
    kind = column_kind(series)
    if present.empty or kind == "image":
        shown = ""
    elif kind in ("number", "integer", "date"):
        shown = f"{_plain(present.min())} to {_plain(present.max())}"
    else:
        common = present.value_counts().head(_EXAMPLES)
        shown = ", ".join(f"{value} ({count})" for value, count in common.items())
    return ColumnFacts(
        name=str(series.name), kind=kind, missing=int(series.isna().sum()), distinct=int(present.nunique()), shown=shown
    )


def _plain(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _problems(frame: pd.DataFrame, schema: pa.DataFrameSchema) -> Iterator[Problem]:
    pandera = _pandera()
    from pandera.config import ValidationDepth, config_context

    try:
        # pandera's environment variables can switch checks off; a table that was not checked must not count as good
        with config_context(validation_enabled=True, validation_depth=ValidationDepth.SCHEMA_AND_DATA):
            schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        # a value that cannot be converted has the wrong type as well: once is enough
        unconverted = cases.loc[cases["check"].astype(str).str.startswith("coerce_dtype"), "column"]
        cases = cases[~(cases["check"].astype(str).str.startswith("dtype") & cases["column"].isin(unconverted))]
        for (column, rule), group in cases.groupby(["column", "check"], dropna=False, sort=False):
            # pandera's order depends on the version of pandas
            in_order = group.sort_values("index", kind="stable")["failure_case"]
            examples = tuple(dict.fromkeys(map(str, in_order)))[:_EXAMPLES]
            yield Problem(
                column=None if pd.isna(column) else str(column), rule=str(rule), count=len(group), examples=examples
            )


def _warnings(frame: pd.DataFrame, target: str) -> Iterator[str]:
    yield from _target_warnings(frame[target])
    if repeated := int(frame.duplicated().sum()):
        yield f"{repeated} of {len(frame)} rows are repeated: the same row may be trained on and tested with."
    for name in frame.columns:
        if name != target:
            yield from _column_warnings(frame[name])
            yield from _leak_warnings(frame[name], frame[target])


def _target_warnings(target: pd.Series[Any]) -> Iterator[str]:
    if missing := int(target.isna().sum()):
        yield f"The target {target.name!r} is missing in {missing} of {len(target)} rows: they cannot be learned from."
    if target.notna().any() and column_kind(target) != "date" and infer_task(target) == "classification":
        counts = target.value_counts()
        if rare := [f"{value!r} ({count})" for value, count in counts.items() if count < _FEW_OF_A_CLASS]:
            few = ", ".join(rare[:_EXAMPLES])
            yield f"Some classes of the target {target.name!r} have fewer than {_FEW_OF_A_CLASS} rows: {few}."


def _column_warnings(series: pd.Series[Any]) -> Iterator[str]:
    name, present = series.name, series.dropna()
    if present.empty:
        yield f"Column {name!r} has no value at all and is left out."
        return
    share = 1 - len(present) / len(series)
    if share > _MOSTLY_MISSING:
        yield f"Column {name!r} is missing in {share:.0%} of the rows."
    if present.nunique() == 1:
        yield f"Column {name!r} has only one value: nothing can be learned from it."
    elif present.nunique() == len(series) and column_kind(series) in ("text", "integer"):
        yield f"Column {name!r} is different in every row: if it is an id, exclude it."
    if present.dtype == object and column_kind(series) != "image":
        numeric = float(pd.to_numeric(present, errors="coerce").notna().mean())
        if _MIXED[0] < numeric < _MIXED[1]:
            yield f"Column {name!r} mixes numbers ({numeric:.0%}) and words: it is read as categories."


def _leak_warnings(series: pd.Series[Any], target: pd.Series[Any]) -> Iterator[str]:
    both = pd.DataFrame({"feature": series, "target": target}).replace([np.inf, -np.inf], np.nan).dropna()
    if len(both) < 2 * _FEW_OF_A_CLASS or both["target"].nunique() < 2 or both["feature"].nunique() < 2:
        return
    numbers = all(pd.api.types.is_numeric_dtype(both[c]) and both[c].dtype != bool for c in both.columns)
    if numbers:
        told = abs(float(both["feature"].corr(both["target"]))) > _NEARLY_EQUAL
    else:
        # an id determines everything, which says nothing
        few = both["feature"].nunique() <= len(both) / 2
        told = few and int(both.groupby("feature")["target"].nunique().max()) == 1
    if told:
        yield f"Column {series.name!r} alone tells the target: is it known before the target is?"
