"""Schemas and warnings: what a table breaks, and what is worth a look."""

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pytest
from pandera.config import ValidationDepth, config_context

from longshore.errors import ConfigError, DataError, StorageError
from longshore.training.columns import settle_types
from longshore.validation.schema import check_table, infer_schema, validate_table

ROWS = 40


def table(**columns):
    """A table that gives no warning, with columns added or replaced."""
    rng = np.random.default_rng(0)
    plain = {
        "number": rng.normal(size=ROWS),
        "whole": rng.integers(0, 9, ROWS),
        "flag": rng.random(ROWS) < 0.5,
        "word": rng.choice(["red", "green", "blue"], ROWS).astype(object),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 30, ROWS), unit="D"),
        "y": np.tile(["u", "v"], ROWS // 2),
    }
    return settle_types(pd.DataFrame({**plain, **columns}))


def first(value, others=None):
    """A column whose first value differs from the others."""
    return [value, *(others or ["red", "green", "blue"] * ROWS)][:ROWS]


def holes(column):
    frame = table()
    return table(**{column: frame[column].astype(object).where(np.arange(ROWS) != 3, None)})


def stored(schema, tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(schema, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(table(), id="plain"),
        *(
            pytest.param(holes(name), id=f"{name} with missing values")
            for name in ("number", "whole", "flag", "word", "day")
        ),
        pytest.param(table(empty=[None] * ROWS), id="an empty column"),
        pytest.param(table(text=[f"text {i}" for i in range(ROWS)]), id="text"),
        pytest.param(table(word=first("yes", ["no", "1.5", "null", "~", "é: [x]"] * ROWS)), id="words that YAML knows"),
        pytest.param(table(mixed=first("one", list(range(ROWS)))), id="mixed"),
        pytest.param(table(**{"name with: colon, é": range(ROWS)}), id="an odd name"),
    ],
)
def test_a_table_keeps_its_own_schema_also_when_that_was_stored(frame, tmp_path):
    report = check_table(frame, target="y")
    assert report.problems == ()
    assert report.inferred
    again = validate_table(frame, target="y", schema_uri=stored(report.schema, tmp_path))
    assert again.problems == ()
    assert not again.inferred
    again.raise_for_problems()


@pytest.mark.parametrize(
    ("broken", "column", "count", "said"),
    [
        pytest.param(table().drop(columns="word"), None, 1, "column 'word' is missing", id="no column"),
        pytest.param(
            table(word=first("pink")), "word", 1,
            "column 'word' has 1 value that the schema does not list: pink", id="new category",
        ),
        pytest.param(
            table(number=first("many", [1.5] * ROWS)), "number", 1,
            "column 'number' has 1 value that cannot be float64, such as many", id="a word among numbers",
        ),
        pytest.param(
            table(flag=first("maybe", [True] * ROWS)), "flag", None,
            "that cannot be boolean, such as", id="a word among booleans",
        ),
        pytest.param(
            table(day=first("someday", ["2024-01-01"] * ROWS)), "day", 1,
            "such as someday", id="a word among dates",
        ),
        pytest.param(holes("number"), "number", 1, "column 'number' must not have missing values", id="number"),
        pytest.param(holes("whole"), "whole", 1, "column 'whole' must not have missing values and has 1", id="whole"),
        pytest.param(holes("flag"), "flag", 1, "column 'flag' must not have missing values and has 1", id="flag"),
        pytest.param(holes("word"), "word", 1, "column 'word' must not have missing values and has 1", id="word"),
        pytest.param(holes("day"), "day", 1, "column 'day' must not have missing values and has 1", id="day"),
    ],
)  # fmt: skip
def test_broken_schemas(broken, column, count, said, tmp_path):
    schema = stored(check_table(table(), target="y").schema, tmp_path)
    report = validate_table(broken, target="y", schema_uri=schema)
    (problem,) = report.problems
    assert problem.column == column
    assert count is None or problem.count == count
    assert said in str(problem)
    assert not report.ok
    assert "breaks 1 rule of the schema" in report.summary
    assert "Broken rules" in report.to_html()
    with pytest.raises(DataError, match="the table breaks the schema: column"):
        report.raise_for_problems()


def test_all_problems_are_told_at_once():
    broken = table(word=first("pink", ["puce"] * ROWS), number=["x"] * ROWS).drop(columns="flag")
    report = check_table(broken, target="y", schema=infer_schema(table()))
    assert len(report.problems) == 3
    assert "breaks 3 rules of the schema" in report.summary
    with pytest.raises(DataError, match=r"(?=.*'flag')(?=.*'number' has 40 values)(?=.*pink, puce)"):
        report.raise_for_problems()


def test_other_rules_of_a_schema_that_was_written_by_hand():
    schema = pandera.DataFrameSchema(
        {"number": pandera.Column("float64", pandera.Check.in_range(-1, 1))}, strict=False, unique=["day", "number"]
    )
    values = [5.0, -7.0, *[0.5] * (ROWS - 2)]
    report = check_table(table(number=values, day="2024-01-01"), target="y", schema=schema)
    rules = {problem.column: str(problem) for problem in report.problems}
    assert "breaks the rule in_range(-1, 1) in 2 values, such as 5.0, -7.0" in rules["number"]
    assert any("unique" in problem.rule for problem in report.problems)


def test_more_columns_than_the_schema_has_are_no_problem():
    assert check_table(table(more=range(ROWS)), target="y", schema=infer_schema(table())).ok


def test_a_schema_can_be_coarser_than_the_table():
    """Whole numbers keep the schema of a table in which they had fractions."""
    schema = infer_schema(table(whole=np.linspace(0, 1, ROWS)))
    assert check_table(table(), target="y", schema=schema).ok


QUIET = table()
WARNINGS = [
    ("target missing", table(y=[None, *["u", "v"] * ROWS][:ROWS]), "The target 'y' is missing in 1 of 40 rows"),
    ("rare class", table(y=["w", *["u", "v"] * ROWS][:ROWS]), "target 'y' have fewer than 10 rows: 'w' (1)"),
    ("repeated rows", pd.concat([QUIET, QUIET.iloc[:3]], ignore_index=True), "3 of 43 rows are repeated"),
    ("no value", table(x=[None] * ROWS), "Column 'x' has no value at all"),
    ("mostly missing", table(x=[1, 2, 3] * 5 + [None] * 25), "Column 'x' is missing in 62% of the rows"),
    ("one value", table(x="same"), "Column 'x' has only one value"),
    ("id of words", table(x=[f"id {i}" for i in range(ROWS)]), "Column 'x' is different in every row"),
    ("id of numbers", table(x=range(1000, 1000 + ROWS)), "Column 'x' is different in every row"),
    ("mixed", table(x=[*["a", "b"] * 5, *[1, 2, 3] * 10]), "Column 'x' mixes numbers (75%) and words"),
    ("leak of a category", table(x=np.tile(["U", "V"], ROWS // 2)), "Column 'x' alone tells the target"),
    ("leak of a finer category", table(x=np.tile(list("abcd"), ROWS // 4)), "Column 'x' alone tells the target"),
    (
        "leak of a number",
        table(y=np.arange(ROWS) ** 1.5, x=5 - 2 * np.arange(ROWS) ** 1.5),
        "Column 'x' alone tells the target",
    ),
]  # fmt: skip
NEARLY = [
    ("no target missing, ten of a class", table(y=["u"] * 10 + ["v"] * 30)),
    ("rows that differ in one value", table(number=[1.0, *np.arange(ROWS - 1.0)], flag=[True] + [False] * (ROWS - 1))),
    ("half missing", table(x=[1, 2, 3] * 6 + [1, 2] + [None] * 20)),
    ("two values", table(x=["rare"] + ["often"] * (ROWS - 1))),
    ("different numbers with fractions", table(x=np.linspace(0.1, 1, ROWS))),
    ("nearly every row", table(x=[0, *range(ROWS - 1)])),
    ("one number among words", table(x=["a", "b", "c"] * 13 + ["7"])),
    ("category that tells nearly all", table(x=["V", *np.tile(["U", "V"], ROWS // 2)[1:]])),
    (
        "number that tells nearly all",
        table(y=np.arange(ROWS) ** 1.5, x=np.arange(ROWS) ** 1.5 + np.tile([-9.0, 9.0], ROWS // 2)),
    ),
    (
        "infinite numbers",
        table(y=np.arange(ROWS) ** 1.5, x=[float("inf"), float("-inf"), *np.arange(ROWS - 2) % 7 * 1.5]),
    ),
    ("large target that is a quantity", table(y=np.arange(ROWS) * 1.1)),
]


@pytest.mark.parametrize(("frame", "said"), [pytest.param(f, s, id=name) for name, f, s in WARNINGS])
def test_warnings(frame, said):
    (warning,) = check_table(frame, target="y").warnings
    assert said in warning


@pytest.mark.parametrize("frame", [pytest.param(QUIET, id="plain"), *(pytest.param(f, id=n) for n, f in NEARLY)])
def test_no_warning_without_need(frame):
    assert check_table(frame, target="y").warnings == ()


def test_facts_of_the_columns():
    frame = holes("number").assign(long=1234567.25)
    report = check_table(frame, target="y")
    facts = {column.name: column for column in report.columns}
    assert list(facts) == list(frame.columns)
    assert (facts["number"].kind, facts["number"].missing, facts["number"].distinct) == ("number", 1, ROWS - 1)
    assert facts["whole"].shown == "0 to 8"
    assert facts["long"].shown == "1234567.25 to 1234567.25"
    assert facts["y"].shown == "u (20), v (20)"
    assert facts["day"].kind == "date"
    assert facts["day"].shown.startswith("2024-01-")
    assert report.summary == "40 rows, 7 columns; keeps its inferred schema; warnings: 1"
    assert "1 (2%)" in report.to_html()


def test_a_table_without_rows_can_be_checked():
    report = check_table(table().iloc[:0], target="y", schema=infer_schema(table()))
    assert report.ok
    assert report.rows == 0
    assert "Data validation" in report.to_html()


def test_a_target_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="target column 'z' is not in the table, which has: number"):
        check_table(table(), target="z")


def test_a_schema_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"schema\.yaml"):
        validate_table(table(), target="y", schema_uri=str(tmp_path / "schema.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "a: [",
        "- 1\n- 2\n",
        "columns: 3\n",
        "\x00\xff",
        "schema_type: dataframe\ncolumns:\n  a: {dtype: strange}\n",
    ],
)
def test_what_is_no_schema_is_refused(text, tmp_path):
    with pytest.raises(ConfigError, match=r"schema\.yaml is no pandera schema in YAML"):
        validate_table(table(), target="y", schema_uri=stored(text, tmp_path))


@pytest.mark.parametrize(
    "setting",
    [{"validation_enabled": False}, {"validation_depth": ValidationDepth.SCHEMA_ONLY}],
    ids=["off", "shallow"],
)
def test_panderas_own_switches_let_no_broken_table_pass(setting):
    schema = infer_schema(table())
    with config_context(**setting):
        report = check_table(table(word=first("purple")), target="y", schema=schema)
    assert [str(problem) for problem in report.problems] == [
        "column 'word' has 1 value that the schema does not list: purple"
    ]
