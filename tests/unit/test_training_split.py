"""Dividing a table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longshore.errors import ConfigError, DataError
from longshore.training import split


def load_penguins():
    return pd.read_csv(Path(__file__).parents[2] / "examples" / "data" / "penguins.csv")


TABLE = pd.DataFrame(
    {
        "x": range(100),
        "y": ["a", "b", "b", "b"] * 25,
        "day": pd.to_datetime(["2024-01-01"]).repeat(100) + pd.to_timedelta(np.arange(100)[::-1] // 7, unit="D"),
        "week": np.arange(100) // 7,
        "who": [f"p{i % 8}" for i in range(100)],
        "same": 1,
    }
)


def assert_divided(table, train, test):
    assert len(train)
    assert len(test)
    assert sorted([*train["x"], *test["x"]]) == sorted(table["x"])
    assert train["x"].is_monotonic_increasing
    assert test["x"].is_monotonic_increasing
    assert list(train.index) == list(range(len(train)))


@pytest.mark.parametrize("test_size", [0.001, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("method", ["auto", "random"])
def test_each_row_is_in_one_part(method, test_size):
    train, test = split(TABLE, target="y", method=method, test_size=test_size)
    assert_divided(TABLE, train, test)
    assert len(test) == min(max(round(100 * test_size), 1), 99)


@pytest.mark.parametrize(
    "options", [{"method": "random"}, {"method": "stratified"}, {"method": "group", "group_column": "who"}]
)
def test_the_seed_decides(options):
    first, again, other = (split(TABLE, target="y", seed=seed, **options)[1] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert list(first["x"]) != list(other["x"])


@pytest.mark.parametrize("method", ["stratified", "auto"])
def test_classes_keep_their_share(method):
    penguins = load_penguins().reset_index(names="x")
    train, test = split(penguins, target="species", method=method, test_size=0.25)
    assert_divided(penguins, train, test)
    assert len(test) == 86
    for name, share in penguins["species"].value_counts(normalize=True).items():
        assert abs((test["species"] == name).mean() - share) < 0.01


def test_a_rare_class_is_in_both_parts():
    table = TABLE.assign(y=["rare", "rare", *["common"] * 98])
    train, test = split(table, target="y", method="stratified", test_size=0.05)
    assert (train["y"] == "rare").sum() == (test["y"] == "rare").sum() == 1
    assert len(test) == 5


def test_rows_without_a_target_stay_in_the_training_part():
    train, test = split(TABLE.assign(y=[None, *["a", "b"] * 49, None]), target="y", method="stratified")
    assert train["y"].isna().sum() == 2
    assert test["y"].notna().all()


@pytest.mark.parametrize("column", ["day", "week"])
@pytest.mark.parametrize("method", ["time", "auto"])
def test_the_latest_rows_are_the_test_part_and_equal_times_stay_together(column, method):
    train, test = split(TABLE, target="y", method=method, time_column=column)
    assert_divided(TABLE, train, test)
    assert train[column].max() < test[column].min()
    assert 20 <= len(test) < 27


def test_times_as_text_are_compared_as_times():
    table = TABLE.assign(day=[f"2024-01-01T10:{i:02}:00{zone}" for i in range(50) for zone in ("+05:00", "Z")])
    train, test = split(table, target="y", time_column="day")
    assert train["day"].str.endswith("+05:00").sum() == 50
    assert len(test) == 20


def test_one_late_time_that_most_rows_share_still_leaves_two_parts():
    train, test = split(TABLE.assign(week=[1] * 90 + [2] * 10), target="y", time_column="week", test_size=0.5)
    assert (len(train), len(test)) == (90, 10)


@pytest.mark.parametrize("method", ["group", "auto"])
@pytest.mark.parametrize("test_size", [0.01, 0.3, 0.99])
def test_no_group_is_in_both_parts(method, test_size):
    train, test = split(TABLE, target="y", method=method, group_column="who", test_size=test_size)
    assert_divided(TABLE, train, test)
    assert not set(train["who"]) & set(test["who"])
    if test_size == 0.3:
        assert 24 <= len(test) <= 38


@pytest.mark.parametrize(
    "target", [[None] * 100, [f"c{i}" for i in range(100)], ["one", *["many"] * 99], np.arange(100) / 3]
)
def test_auto_falls_back_to_random(target):
    train, test = split(TABLE.assign(y=target), target="y")
    assert (len(train), len(test)) == (80, 20)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "best"}, "use one of auto, random"),
        ({"test_size": 0}, "share between 0 and 1"),
        ({"test_size": 1.0}, "share between 0 and 1"),
        ({"test_size": float("nan")}, "share between 0 and 1"),
        ({"test_size": "0.2"}, "share between 0 and 1"),
        ({"test_size": True}, "share between 0 and 1"),
        ({"method": "time"}, "needs time_column"),
        ({"method": "group"}, "needs group_column"),
        ({"method": "random", "time_column": "day"}, "of no use to the method 'random'"),
        ({"method": "time", "time_column": "day", "group_column": "who"}, "of no use to the method 'time'"),
        ({"time_column": "day", "group_column": "who"}, "are both given"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        split(TABLE, target="y", **options)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({}, {"target": "Y"}, "target column 'Y' is not in the table, which has: x, y, day"),
        ({}, {"time_column": "date"}, "time column 'date' is not in the table, which has: x, y"),
        ({}, {"group_column": "whom"}, "group column 'whom' is not in the table"),
        ({}, {"group_column": "same"}, "one group only"),
        ({"who": None}, {"group_column": "who"}, "100 rows have no value in the group column"),
        ({}, {"time_column": "same"}, "all rows have the same time"),
        ({}, {"time_column": "who"}, "neither dates nor numbers, such as 'p0'"),
        ({"day": None}, {"time_column": "day"}, "100 rows have no value in the time column"),
        ({"y": ["one", *["many"] * 99]}, {"method": "stratified"}, "the class 'one' of 'y' has one row only"),
        ({"y": None}, {"method": "stratified"}, "has no value at all"),
        ({}, {"method": "stratified", "test_size": 0.01}, "2 classes, too many for a test part of 1"),
    ],
)
def test_a_table_that_cannot_be_divided_that_way_is_told(change, options, says):
    with pytest.raises(DataError, match=says):
        split(TABLE.assign(**change), **{"target": "y", **options})


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_are_told(rows):
    with pytest.raises(DataError, match=f"table of {rows} rows cannot be divided"):
        split(TABLE.head(rows), target="y")
