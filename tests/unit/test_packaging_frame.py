"""Rows and tables on their way to a model."""

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from longshore.errors import DataError, InputError
from longshore.packaging.bins import array_bin_counts, bin_counts, bin_indices
from longshore.packaging.card import Column, FeatureBins, Signature, bin_index
from longshore.packaging.frame import conform, frame_to_rows, rows_to_frame

SIGNATURE = Signature(
    inputs=(
        Column(name="mass", kind="number", nullable=True),
        Column(name="year", kind="integer", nullable=False),
        Column(name="tagged", kind="boolean", nullable=False),
        Column(name="Ort (Käfig)", kind="category", nullable=False, categories=("12", "Dream")),
        Column(name="note", kind="text", nullable=True),
        Column(name="seen", kind="date", nullable=True),
    ),
    task="regression",
    target="flipper",
    classes=None,
    ignored=("id",),
)
ROW = {"mass": 3750.5, "year": 2007, "tagged": True, "Ort (Käfig)": "Dream", "note": "ok", "seen": "2024-05-17"}
EMPTY = dict.fromkeys(ROW)


def test_rows_get_the_types_that_training_used():
    frame = rows_to_frame(SIGNATURE, [ROW, EMPTY])
    assert list(map(str, frame.dtypes)) == ["float64", "float64", "float64", "object", "object", "datetime64[us]"]
    assert list(frame.columns) == list(SIGNATURE.names)
    assert frame.iloc[0].tolist() == [3750.5, 2007.0, 1.0, "Dream", "ok", pd.Timestamp("2024-05-17")]
    assert frame.iloc[1].isna().all()
    assert type(frame["note"][1]) is float


def test_a_single_row_of_strings_stays_an_object_column():
    assert rows_to_frame(SIGNATURE, [ROW])["note"].dtype == object


def test_arrays_are_read_in_the_order_of_the_signature_or_of_the_names_given():
    expected = rows_to_frame(SIGNATURE, [ROW])
    pd.testing.assert_frame_equal(rows_to_frame(SIGNATURE, [list(ROW.values())]), expected)
    backwards = list(ROW)[::-1]
    rows = [[ROW[name] for name in backwards]]
    pd.testing.assert_frame_equal(rows_to_frame(SIGNATURE, rows, columns=backwards), expected)


def test_target_and_ignored_columns_may_be_sent():
    row = {"id": "x-17", "flipper": 181.0, **ROW}
    pd.testing.assert_frame_equal(rows_to_frame(SIGNATURE, [row]), rows_to_frame(SIGNATURE, [ROW]))


@pytest.mark.parametrize(
    ("column", "value", "seen"),
    [
        ("mass", 3, 3.0),
        ("mass", np.float64(2.5), 2.5),
        ("year", 2007.0, 2007.0),
        ("year", np.int64(7), 7.0),
        ("Ort (Käfig)", 12, "12"),
        ("Ort (Käfig)", 12.0, "12"),
        ("Ort (Käfig)", "never seen", "never seen"),
        ("seen", "2024-05-17T10:00:00+02:00", pd.Timestamp("2024-05-17T08:00")),
        ("seen", "2024-05-17T08:00:00Z", pd.Timestamp("2024-05-17T08:00")),
        ("seen", "9999-12-31", pd.Timestamp("9999-12-31")),
        ("seen", date(2024, 5, 17), pd.Timestamp("2024-05-17")),
        ("tagged", False, 0.0),
    ],
)
def test_what_means_the_same_is_taken(column, value, seen):
    assert rows_to_frame(SIGNATURE, [{**ROW, column: value}])[column][0] == seen


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("mass", "3750", "expected a number, got a string ('3750')"),
        ("mass", True, "expected a number, got a boolean (True)"),
        ("mass", [1], "expected a number, got an array ([1])"),
        ("mass", math.nan, "not a finite number: use null"),
        ("mass", math.inf, "not a finite number"),
        pytest.param("mass", -(10**5000), "too large", id="huge"),
        ("year", 2007.5, "expected a whole number, got 2007.5"),
        ("tagged", 1, "expected true or false, got a number (1)"),
        ("tagged", "true", "expected true or false, got a string ('true')"),
        ("Ort (Käfig)", 5, "expected a string, got a number (5)"),
        ("Ort (Käfig)", {"a": 1}, "expected a string, got an object"),
        ("note", 5, "expected a string"),
        ("seen", "17.05.2024", "expected an ISO 8601 date"),
        ("seen", 1715904000, "expected an ISO 8601 date"),
        ("seen", "", "expected an ISO 8601 date"),
        ("note", ["x" * 1000], "..."),
    ],
)
def test_a_wrong_value_is_named_by_row_and_column(column, value, says):
    with pytest.raises(InputError) as caught:
        rows_to_frame(SIGNATURE, [ROW, {**ROW, column: value}])
    assert str(caught.value).startswith(f"row 1, column {column!r}: ")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 250


def test_all_problems_are_told_in_the_order_of_the_rows():
    rows = [{**ROW, "year": "x"}, {k: v for k, v in ROW.items() if k != "mass"}, {**ROW, "mas": 1}, 7, [1, 2], {}]
    with pytest.raises(InputError) as caught:
        rows_to_frame(SIGNATURE, rows)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "row 0, column 'year'",
        "row 1",
        "row 2",
        "row 3 is a number (7), not an object or an array",
        "row 4 has 2 values, 6 are needed",
        "row 5 is empty",
    ]
    assert caught.value.problems[1] == "row 1: column 'mass' is missing"
    assert caught.value.problems[2] == "row 2: column 'mas' is unknown: did you mean 'mass'?"


def test_a_new_column_without_a_near_name_lists_what_the_model_takes():
    with pytest.raises(InputError, match=r"'zzz' is unknown: the model takes mass, year, tagged"):
        rows_to_frame(SIGNATURE, [{**ROW, "zzz": 1}])


def test_thousands_of_problems_make_a_short_message():
    with pytest.raises(InputError) as caught:
        rows_to_frame(SIGNATURE, [{**ROW, "mass": "x"}] * 5000)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "and 4980 more problems"


def test_no_rows_are_refused():
    with pytest.raises(InputError, match="there are no rows"):
        rows_to_frame(SIGNATURE, [])


def test_rows_and_frames_turn_into_each_other():
    rows = [{**ROW, "seen": "2024-05-17T00:00:00"}, EMPTY]
    assert frame_to_rows(SIGNATURE, rows_to_frame(SIGNATURE, rows)) == rows
    kinds = [type(value) for value in frame_to_rows(SIGNATURE, rows_to_frame(SIGNATURE, rows))[0].values()]
    assert kinds == [float, int, bool, str, str, str]


def test_conform_takes_a_table_as_pandas_reads_it():
    table = pd.DataFrame(
        {
            "seen": pd.to_datetime(["2024-05-17T10:00:00+02:00", None]),
            "flipper": [1.0, 2.0],
            "id": ["a", "b"],
            "note": pd.array(["ok", None], dtype="string"),
            "Ort (Käfig)": pd.Categorical(["Dream", None]),
            "tagged": pd.array([True, None], dtype="boolean"),
            "year": pd.array([2007, None], dtype="Int64"),
            "mass": ["3750.5", None],
        },
        index=[5, 9],
    )
    conformed = conform(SIGNATURE, table)
    expected = rows_to_frame(SIGNATURE, [{**ROW, "seen": "2024-05-17T08:00:00"}, EMPTY])
    pd.testing.assert_frame_equal(conformed, expected.set_index(pd.Index([5, 9])))
    pd.testing.assert_frame_equal(conform(SIGNATURE, conformed), conformed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop(columns=["mass"]), "column 'mass' is missing"),
        (lambda t: t.assign(surprise=1), "column 'surprise' is unknown: the model takes mass"),
        (lambda t: t.rename(columns={"mass": "Mass"}), "column 'Mass' is unknown: did you mean 'mass'?"),
        (lambda t: pd.concat([t, t[["mass"]]], axis=1), "column 'mass' is there more than once"),
        (lambda t: t.assign(mass="heavy"), "column 'mass' should hold a number in each row; 1 of 1 values do not"),
        (lambda t: t.assign(mass=math.inf), "the first is inf in row 0"),
        (lambda t: t.assign(mass=pd.Timestamp(0)), "column 'mass' should hold a number"),
        (lambda t: t.assign(year=0.5), "column 'year' should hold a whole number"),
        (lambda t: t.assign(tagged="perhaps"), "column 'tagged' should hold true or false"),
        (lambda t: t.assign(seen="yesterday"), "column 'seen' should hold an ISO 8601 date"),
        (lambda t: t.assign(seen=5), "column 'seen' should hold an ISO 8601 date"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change, says):
    with pytest.raises(DataError) as caught:
        conform(SIGNATURE, change(pd.DataFrame([ROW])))
    assert says in str(caught.value)


BINS = (
    FeatureBins(name="mass", kind="number", edges=(1.0, 2.5), categories=(), counts=(0,) * 4),
    FeatureBins(name="year", kind="integer", edges=(), categories=(), counts=(0,) * 2),
    FeatureBins(name="tagged", kind="boolean", edges=(), categories=("False", "True"), counts=(0,) * 4),
    FeatureBins(name="Ort (Käfig)", kind="category", edges=(), categories=("12", "Dream"), counts=(0,) * 4),
    FeatureBins(name="note", kind="text", edges=(), categories=(), counts=(0,) * 2),
    FeatureBins(name="seen", kind="date", edges=(0.0, 1e9), categories=(), counts=(0,) * 4),
)


def test_columns_are_binned_as_single_values_are():
    rows = [
        ROW,
        EMPTY,
        {**ROW, "mass": 1.0, "tagged": False, "Ort (Käfig)": "12", "seen": "1969-12-31T23:59:59"},
        {**ROW, "mass": 2.5, "Ort (Käfig)": "elsewhere", "seen": "1970-01-01"},
    ]
    frame = rows_to_frame(SIGNATURE, rows)
    for bins in BINS:
        assert bin_indices(bins, frame[bins.name]).tolist() == [bin_index(bins, row[bins.name]) for row in rows]


def test_counts_cover_every_bin_and_row():
    frame = rows_to_frame(SIGNATURE, [ROW, ROW, EMPTY])
    counts = bin_counts(BINS, frame)
    assert counts["mass"] == [0, 0, 2, 1]
    assert counts["Ort (Käfig)"] == [0, 2, 0, 1]
    assert {name: len(values) for name, values in counts.items()} == {bins.name: bins.size for bins in BINS}
    assert all(sum(values) == 3 for values in counts.values())


@given(arrays(np.float64, st.tuples(st.integers(0, 20), st.just(3)), elements=st.sampled_from([-1, 0, 1, 2.5, np.nan])))
def test_arrays_are_counted_as_frames_are(array):
    names = ("tagged", "mass", "year")
    numbers = [bins for bins in BINS if bins.name in names]
    assert array_bin_counts(numbers, names, array) == bin_counts(numbers, pd.DataFrame(array, columns=list(names)))
