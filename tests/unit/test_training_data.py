"""Reading, writing and understanding tables."""

import bz2
import datetime as dt
import errno
import gzip
import lzma
import os
import zipfile
from decimal import Decimal
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from longshore.errors import ConfigError, DataError, StorageError
from longshore.packaging.card import Signature
from longshore.packaging.frame import conform
from longshore.training import infer_columns, read_dataset, read_table, settle_types, table_digest, write_table
from longshore.training.columns import column_kind, infer_task, make_bins


def load_penguins():
    return pd.read_csv(Path(__file__).parents[2] / "examples" / "data" / "penguins.csv")


TEXT = "größe;Ort am See;tag\n1,5;Köln;2024-05-17\n2,5;Zürich;2024-05-18\n"


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return str(path)


def dtypes(frame):
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encoding_separator_and_decimal_comma_are_found(tmp_path, encoding):
    frame = read_table(write(tmp_path / "t.csv", TEXT, encoding))
    assert dtypes(frame) == {"größe": "float64", "Ort am See": "object", "tag": "datetime64[us]"}
    assert frame["größe"].tolist() == [1.5, 2.5]
    assert frame["Ort am See"].tolist() == ["Köln", "Zürich"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_usual_separator_and_line_end_is_found(tmp_path, separator, newline):
    lines = [["a", '"text, with; all | of	them"', "c"], ["1", '"x, y; z | 	"', "2.5"], ["3", '"a\nb"', "4.5"]]
    text = newline.join(separator.join(line) for line in lines) + newline
    frame = read_table(write(tmp_path / "t.csv", text))
    assert list(frame.columns) == ["a", "text, with; all | of	them", "c"]
    assert frame["c"].tolist() == [2.5, 4.5]


def test_a_single_column_needs_no_separator(tmp_path):
    assert read_table(write(tmp_path / "t.csv", "x\n1\n2\n"))["x"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".csv.gz", gzip.compress), (".csv.bz2", bz2.compress), (".csv.xz", lzma.compress)]
)
def test_packed_tables_are_unpacked(tmp_path, suffix, pack):
    path = write(tmp_path / f"t{suffix}", pack(b"a,b\n1,2\n"))
    assert read_table(path).to_dict("list") == {"a": [1], "b": [2]}
    with pytest.raises(DataError, match="not a valid"):
        read_table(write(tmp_path / f"t{suffix}", pack(b"a,b\n" * 100)[:-6]))


def test_a_zip_archive_holds_one_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
    assert len(read_table(str(tmp_path / "t.zip"))) == 1
    with zipfile.ZipFile(tmp_path / "t.zip", "a") as archive:
        archive.writestr("b.csv", "a,b\n1,2\n")
    with pytest.raises(DataError, match="holds 2 files, one table is needed: a.csv, b.csv"):
        read_table(str(tmp_path / "t.zip"))


def test_any_uri_is_read():
    fs = fsspec.filesystem("memory")
    fs.pipe("/bucket/t.csv", b"a,b\n1,2\n")
    assert len(read_table("memory://bucket/t.csv")) == 1
    fs.rm("/bucket/t.csv")


def test_options_are_followed(tmp_path):
    path = write(tmp_path / "t.csv", "a:b\n-:20240517\nö:20240518\n", "latin-1")
    frame = read_table(path, format="csv", separator=":", encoding="latin-1", na_values=["-"])
    assert frame["a"].isna().tolist() == [True, False]
    assert frame["a"][1] == "ö"


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["17.05.2024", "NA", "01.02.2024"], "2024-05-17"),
        (["5/17/2024 14:30", "5/18/2024 00:00"], "2024-05-17T14:30"),
        (["17/05/2024", "01/02/2024"], "2024-05-17"),
        (["20240517", "20240201"], "2024-05-17"),
        (["2024-05-17T14:30:00+02:00", "2024-05-17"], "2024-05-17T12:30"),
        (["03/03/2024", "04/04/2024"], "2024-03-03"),
    ],
)
def test_named_date_columns_are_read_as_they_are_usually_written(tmp_path, values, first):
    frame = read_table(
        write(tmp_path / "t.csv", "\n".join(["day,x", *(f"{v},1" for v in values)])), date_columns=["day"]
    )
    assert str(frame["day"].dtype) == "datetime64[us]"
    assert frame["day"][0] == pd.Timestamp(first)


def test_dates_that_can_be_read_in_two_ways_are_refused(tmp_path):
    with pytest.raises(DataError, match="'03/04/2024', can be read as %d/%m/%Y and as %m/%d/%Y"):
        read_table(write(tmp_path / "t.csv", "day,x\n03/04/2024,1\n"), date_columns=["day"])


def test_one_date_of_another_pattern_is_named(tmp_path):
    with pytest.raises(DataError, match=r"the first that is not %d.%m.%Y is 'soon' in data row 2"):
        read_table(write(tmp_path / "t.csv", "day,x\n17.05.2024,1\nsoon,1\n18.05.2024,1\n"), date_columns=["day"])


def test_codes_keep_their_leading_zeros(tmp_path):
    frame = read_table(write(tmp_path / "t.csv", "zip,n,r\n01234,0,0.5\n99999,10,05.5\n,1,1\n"))
    assert frame["zip"].tolist()[:2] == ["01234", "99999"]
    assert frame["zip"].isna().tolist() == [False, False, True]
    assert dtypes(frame) == {"zip": "object", "n": "int64", "r": "float64"}


def test_headers_keep_all_but_the_white_space_around_them(tmp_path):
    frame = read_table(write(tmp_path / "t.csv", " Länge (mm) ,\tB b\n1,2\n", "utf-8"), separator=",")
    assert list(frame.columns) == ["Länge (mm)", "B b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "t.csv is empty"),
        (b"  \n\n", "t.csv is empty"),
        (b"a,b\n", "has no rows, only the columns a, b"),
        (b"a,,c,\n1,2,3,4\n", "column 2, 4 has no name"),
        (b"a,b,a,b\n1,2,3,4\n", "names 'a', 'b' more than once"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 values, but the header names 2 columns"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values, but the header names 2 columns"),
        (b'a,b\n"x\ny",2\n3,4,5\n', "line 4 has 3 values"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text in utf-8 or cp1252"),
        (b"\xff\xfea", "is not text in utf-16"),
        (b"PAR1 and then something else", "is not a valid Parquet file"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, content, says):
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path / "t.csv", content))
    assert says in str(caught.value)
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"format": "xlsx"}, ConfigError, "use 'csv' or 'parquet'"),
        ({"format": "parquet"}, DataError, "not a valid Parquet file"),
        ({"separator": ";;"}, ConfigError, "use one character"),
        ({"encoding": "utf-9"}, ConfigError, "encoding = 'utf-9' is not known"),
        ({"encoding": "ascii"}, DataError, "is not text in ascii"),
        (
            {"date_columns": ["when"]},
            DataError,
            "date column 'when' is not in the table, which has: größe, Ort",
        ),
        (
            {"date_columns": ["Ort am See"]},
            DataError,
            "'Ort am See' holds values that are not dates .*'Köln' in data row 1",
        ),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        read_table(write(tmp_path / "t.csv", TEXT), **options)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        read_table(str(tmp_path / "none.csv"))
    with pytest.raises(StorageError, match="no such file"):
        read_dataset(tmp_path / "none.parquet")


def test_types_are_settled():
    frame = pd.DataFrame(
        {
            "int": [1, 2],
            "uint": pd.array([1, None], dtype="UInt8"),
            "big": [10**30, 1],
            "bool": [True, False],
            "maybe": [True, None],
            "mixed": [1.0, "a"],
            "nothing": [None, None],
            "decimal": [Decimal("1.5"), None],
            "date": [dt.date(2024, 5, 17), None],
            "iso": ["2024-05-17 10:00:00+02:00", "2024-05-17"],
            "not quite": ["2024-05-17", "17.05.2024"],
            "impossible": ["2024-02-31", "2024-02-01"],
            "zone": pd.to_datetime(["2024-05-17T10:00:00+02:00", None]),
            "span": pd.to_timedelta([1, 2], unit="s"),
            "category": pd.Categorical(["a", None]),
            "list": [[1], [2]],
            3: ["x", "y"],
        }
    )
    before = frame.copy()
    settled = settle_types(frame)
    assert dtypes(settled) == {
        "int": "int64",
        "uint": "float64",
        "big": "float64",
        "bool": "bool",
        "maybe": "boolean",
        "mixed": "object",
        "nothing": "float64",
        "decimal": "float64",
        "date": "datetime64[us]",
        "iso": "datetime64[us]",
        "not quite": "object",
        "impossible": "object",
        "zone": "datetime64[us]",
        "span": "float64",
        "category": "object",
        "list": "object",
        "3": "object",
    }
    assert settled["mixed"].tolist() == ["1", "a"]
    assert settled["iso"][0] == pd.Timestamp("2024-05-17T08:00")
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(settle_types(settled), settled)


def test_a_data_set_comes_back_as_it_was_written(tmp_path):
    frame = settle_types(
        load_penguins().assign(
            tagged=[None, *[True, False] * 171, None], Tag=pd.date_range("9998-01-01", periods=344, unit="us")
        )
    )
    write_table(frame, tmp_path / "new folder" / "d.parquet")
    pd.testing.assert_frame_equal(read_dataset(tmp_path / "new folder" / "d.parquet"), frame)


def test_equal_tables_give_equal_files_and_digests(tmp_path):
    frame = load_penguins()
    write_table(frame, tmp_path / "a")
    write_table(frame.set_index(frame.index + 5), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    frame.to_csv(tmp_path / "c.csv", index=False)
    assert table_digest(read_table(str(tmp_path / "c.csv"))) == table_digest(frame) == table_digest(frame.copy())


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.iloc[::-1],
        lambda f: f.iloc[:-1],
        lambda f: f.rename(columns={"year": "Year"}),
        lambda f: f[f.columns[::-1]],
        lambda f: f.assign(year=f["year"] + 1),
        lambda f: f.assign(year=f["year"].astype(str)),
        lambda f: f.assign(sex=f["sex"].fillna("")),
        lambda f: f.assign(sex=None),
    ],
)
def test_another_table_has_another_digest(change):
    assert table_digest(change(load_penguins())) != table_digest(load_penguins())


def test_strings_that_touch_do_not_collide():
    assert table_digest(pd.DataFrame({"a": ["xy", "z"]})) != table_digest(pd.DataFrame({"a": ["x", "yz"]}))


def test_a_named_index_in_parquet_is_a_column(tmp_path):
    pd.DataFrame({"a": [1, 2]}, index=pd.Index([5, 6], name="day")).to_parquet(tmp_path / "named")
    pd.DataFrame({"a": [1, 2]}, index=["x", "y"]).to_parquet(tmp_path / "nameless")
    assert set(read_dataset(tmp_path / "named").columns) == {"a", "day"}
    assert list(read_dataset(tmp_path / "nameless").columns) == ["a"]


def test_a_full_disk_leaves_the_old_data_set(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    write_table(pd.DataFrame({"a": [1]}), tmp_path / "d.parquet")
    before = (tmp_path / "d.parquet").read_bytes()

    def full(_table, where, **_options):
        where.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_table(pd.DataFrame({"a": [2]}), tmp_path / "d.parquet")
    assert (tmp_path / "d.parquet").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_columns_are_told_from_the_penguins():
    inferred = infer_columns(settle_types(load_penguins()), "species")
    kinds = {column.name: (column.kind, column.nullable) for column in inferred.columns}
    assert kinds["island"] == ("category", False)
    assert kinds["sex"] == ("category", True)
    assert kinds["body_mass_g"] == ("number", True)
    assert kinds["year"] == ("integer", False)
    assert inferred.columns[0].categories == ("Biscoe", "Dream", "Torgersen")
    assert inferred.left_out == {}


def test_columns_of_no_use_are_left_out_and_logged(caplog):
    frame = settle_types(
        load_penguins().assign(
            empty=np.nan, id=[f"p-{i}" for i in range(344)], city=[f"c{i % 160}" for i in range(344)], constant=1
        )
    )
    inferred = infer_columns(frame, "species", exclude=["year"])
    assert list(inferred.left_out) == ["year", "empty", "id"]
    assert inferred.left_out["empty"] == "all its values are missing"
    assert "344 different values in 344 rows" in inferred.left_out["id"]
    assert "'empty' is left out: all its values are missing" in caplog.text
    assert "'year'" not in caplog.text


def test_an_excluded_column_must_be_there():
    with pytest.raises(DataError, match="excluded column 'yaer' is not in the table, which has: species, island"):
        infer_columns(settle_types(load_penguins()), "species", exclude=["yaer"])


def test_nothing_to_learn_from_is_told():
    with pytest.raises(DataError, match="no column to learn from .*a: all its values are missing"):
        infer_columns(settle_types(pd.DataFrame({"a": [None, None], "y": [1, 2]})), "y")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "category"),
        ([f"{i}x" for i in range(201)] * 3, "text"),
        ([f"{i}x" for i in range(200)] * 3, "category"),
        ([f"{i}x" for i in range(30)], "text"),
        ([1, 2], "integer"),
        ([1, None], "number"),
        ([True, None], "boolean"),
        (["2024-05-17"], "date"),
    ],
)
def test_kinds(values, kind):
    assert column_kind(settle_types(pd.DataFrame({"x": values}))["x"]) == kind


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"], "classification"),
        ([True, False, None], "classification"),
        ([0, 1, 2] * 5, "classification"),
        ([0, 1, None] * 5, "classification"),
        ([0.5, 1.5] * 50, "regression"),
        (list(range(21)) * 10, "regression"),
        ([1, 2, 3], "regression"),
    ],
)
def test_the_task_is_told_from_the_target(values, task):
    assert infer_task(settle_types(pd.DataFrame({"y": values}))["y"]) == task


def test_dates_cannot_be_predicted():
    with pytest.raises(DataError, match="holds dates"):
        infer_task(settle_types(pd.DataFrame({"y": ["2024-05-17"]}))["y"])


def bins_of(values):
    frame = settle_types(pd.DataFrame({"x": values, "y": 0}))
    column = infer_columns(frame, "y").columns[0]
    signature = Signature(inputs=(column,), task="regression", target="y", classes=None)
    return make_bins(column, conform(signature, frame)["x"])


def test_numbers_are_cut_at_their_deciles():
    bins = bins_of([*np.arange(1000) / 7, None])
    assert len(bins.edges) == 9
    assert bins.counts == (*[100] * 10, 1)


@pytest.mark.parametrize(
    ("values", "edges", "counts"),
    [
        ([1, 1, 2, 5], (2.0, 5.0), (2, 1, 1, 0)),
        ([7, 7], (), (2, 0)),
        ([0.0] * 90 + [float(i) for i in range(1, 11)], (1.0,), (90, 10, 0)),
        (["1970-01-01", "1970-01-02", None], (86400.0,), (1, 1, 1)),
    ],
)
def test_few_or_repeated_values_give_fewer_bins(values, edges, counts):
    bins = bins_of(values)
    assert (bins.edges, bins.counts) == (edges, counts)


def test_frequent_categories_have_bins_of_their_own():
    bins = bins_of([*(f"c{i:02}" for i in range(25) for _ in range(i + 1)), None])
    assert bins.categories == tuple(f"c{i:02}" for i in range(5, 25))
    assert bins.counts == (*range(6, 26), 1 + 2 + 3 + 4 + 5, 1)


def test_booleans_have_both_bins():
    assert bins_of([True, True, None]).counts == (0, 2, 0, 1)


def test_a_constant_column_is_kept():
    assert bins_of([3, 3, 3]).counts == (3, 0)
