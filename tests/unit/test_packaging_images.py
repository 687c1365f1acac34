"""Pictures in tables, requests, cards and bins."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from longshore.errors import DataError, InputError, InvalidValue
from longshore.packaging import Column, FeatureBins, Signature, bin_counts, conform, frame_to_rows, rows_to_frame
from longshore.packaging.card import bin_index
from longshore.packaging.images import decode_image, encode_image, image_shape, image_text, read_image
from longshore.serving.core import Ask
from longshore.serving.protocol import _asked
from longshore.serving.refusals import RequestError
from longshore.training import settle_types, table_digest, write_table
from longshore.training.columns import column_kind, infer_columns, make_bins
from longshore.training.data import read_dataset
from longshore.validation import validate_table

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7
SIGNATURE = Signature(
    inputs=(
        Column(name="photo", kind="image", nullable=False, shape=(3, 4, 1)),
        Column(name="age", kind="number", nullable=False),
    ),
    task="classification",
    target="kind",
    classes=("cat", "dog"),
)


def file_of(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("pixels", "shape"), [(GREY, (3, 4, 1)), (COLOUR, (3, 4, 3))])
def test_a_picture_comes_back_as_it_was(pixels, shape):
    content = encode_image(pixels)
    assert image_shape(content) == shape
    np.testing.assert_array_equal(decode_image(content, shape), pixels.reshape(shape))


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4]))
def test_every_shape_is_reached(height, width, channels):
    assert decode_image(encode_image(COLOUR), (height, width, channels)).shape == (height, width, channels)


def test_a_photo_is_turned_as_its_file_says():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = file_of(np.repeat(np.repeat(COLOUR, 8, 0), 8, 1), "JPEG", exif=exif)
    assert image_shape(content) == (32, 24, 3)
    assert decode_image(content, (32, 24, 3)).shape == (32, 24, 3)


def test_sixteen_bits_become_eight():
    deep = (GREY.astype(np.uint16) << 8) | 255
    np.testing.assert_array_equal(decode_image(file_of(deep), (3, 4, 1))[:, :, 0], GREY)


@pytest.mark.parametrize(
    "value",
    [
        encode_image(GREY),
        image_text(GREY),
        "data:image/png;base64," + image_text(GREY),
        {"b64": image_text(GREY)},
        GREY.tolist(),
        GREY[:, :, None].tolist(),
        GREY.astype(float),
    ],
    ids=["bytes", "base64", "data url", "b64", "pixels", "pixels with channel", "array"],
)
def test_a_picture_is_read_in_every_form(value):
    np.testing.assert_array_equal(read_image(value, (3, 4, 1))[:, :, 0], GREY)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "got nothing"),
        (7, "got int"),
        ("not base64!", "in base64, got 'not base64!'"),
        (base64.b64encode(b"text").decode(), "none of PNG, JPEG"),
        (file_of(np.tile(COLOUR, (9, 9, 1)), "JPEG")[:-200], "cannot be read"),
        ([[1, 2], [3]], "not of one length"),
        ([["a", "b"]], "hold no numbers"),
        (GREY[:2].tolist(), r"shape \[3, 4, 1\], got \[2, 4\]"),
        ((GREY + 0.5).tolist(), "whole numbers from 0 to 255"),
        ((GREY.astype(int) + 200).tolist(), "whole numbers from 0 to 255"),
        ((GREY.astype(float) * np.nan).tolist(), "whole numbers from 0 to 255"),
        ({"b64": 1}, "got int"),
        ({"data": "x"}, "got dict"),
    ],
)
def test_what_is_no_picture_is_told(value, says):
    with pytest.raises(ValueError, match=says):
        read_image(value, (3, 4, 1))


def test_a_small_file_cannot_fill_the_memory():
    stream = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(stream, format="PNG")
    with pytest.raises(ValueError, match="9000 x 9000 pixels, more than"):
        image_shape(stream.getvalue())


def test_no_reader_that_starts_programs_is_used():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(ValueError, match="none of PNG"):
        image_shape(eps)


def test_rows_of_a_request_become_pixels_and_rows_again():
    frame = rows_to_frame(SIGNATURE, [{"photo": image_text(GREY), "age": 3}, [GREY.tolist(), 4]])
    assert [cell.shape for cell in frame["photo"]] == [(3, 4, 1)] * 2
    rows = frame_to_rows(SIGNATURE, frame)
    assert rows == [{"photo": image_text(GREY), "age": 3.0}, {"photo": image_text(GREY), "age": 4.0}]


def test_a_row_without_its_picture_is_named():
    with pytest.raises(InputError, match="row 1, column 'photo': expected a picture"):
        rows_to_frame(SIGNATURE, [{"photo": image_text(GREY), "age": 3}, {"photo": None, "age": 3}])
    with pytest.raises(DataError, match=r"column 'photo' should hold a picture in each row; 1 of 2 do not.* row 1"):
        conform(SIGNATURE, pd.DataFrame({"photo": [encode_image(GREY), None], "age": [1, 2]}))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (0, 4, 1), (True, 4, 1), (3.0, 4, 1)])
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(InvalidValue, match=r"height, width and channels"):
        Column(name="photo", kind="image", nullable=False, shape=shape)


def test_a_shape_goes_with_pictures_only():
    with pytest.raises(InvalidValue, match=r"Column.shape"):
        Column(name="age", kind="number", nullable=False, shape=(3, 4, 1))
    with pytest.raises(InvalidValue, match=r"Column.shape"):
        Column(name="photo", kind="image", nullable=False)


def test_pictures_are_counted_by_their_brightness():
    column = SIGNATURE.inputs[0]
    pixels = [np.full((3, 4, 1), value, np.uint8) for value in (0, 0, 10, 20, 200)]
    series = pd.Series([*pixels], dtype=object)
    bins = make_bins(column, series)
    assert bins.edges == (10.0, 20.0, 200.0)
    assert bins.counts == (2, 1, 1, 1, 0)
    assert bin_index(bins, 15.0) == 1
    assert bin_counts([bins], pd.DataFrame({"photo": series})) == {"photo": [2, 1, 1, 1, 0]}


def test_free_texts_are_counted_by_their_length_and_repeated_ones_by_their_value():
    column = Column(name="words", kind="text", nullable=False)
    free = make_bins(column, pd.Series(["a" * n for n in (1, 2, 3, 4)], dtype=object))
    assert (free.edges, free.categories, free.ordered) == ((2.0, 3.0, 4.0), (), True)
    assert bin_index(free, "xyz") == 2
    repeated = make_bins(column, pd.Series(["a", "a", "b", "b"], dtype=object))
    assert (repeated.edges, repeated.categories, repeated.ordered) == ((), ("a", "b"), False)
    alike = make_bins(column, pd.Series(["a", "b", "c"], dtype=object))
    assert alike.counts == (3, 0)
    assert bin_index(alike, "d") == 0
    assert isinstance(alike, FeatureBins)


@pytest.mark.parametrize(
    "cells",
    [
        [encode_image(GREY), None, encode_image(COLOUR)],
        [bytearray(encode_image(GREY)), None, bytearray(encode_image(COLOUR))],
        [{"bytes": encode_image(GREY), "path": "a.png"}, None, {"bytes": encode_image(COLOUR), "path": None}],
        [GREY, None, COLOUR],
    ],
    ids=["bytes", "bytearrays", "of a Hugging Face data set", "arrays"],
)
def test_a_column_of_pictures_settles_to_their_files(cells):
    settled = settle_types(pd.DataFrame({"photo": cells}))["photo"]
    assert settled.isna().tolist() == [False, True, False]
    assert settled.dropna().tolist() == [encode_image(GREY), encode_image(COLOUR)]
    assert column_kind(settled) == "image"


def test_a_table_of_pictures_is_stored_and_has_a_digest(tmp_path):
    frame = pd.DataFrame({"photo": [encode_image(GREY), None, encode_image(COLOUR)], "kind": ["a", "b", "a"]})
    write_table(frame, tmp_path / "table")
    back = read_dataset(tmp_path / "table")
    assert back["photo"].tolist()[::2] == frame["photo"].tolist()[::2]
    assert table_digest(back) == table_digest(frame)
    assert table_digest(frame.assign(photo=frame["photo"].tolist()[::-1])) != table_digest(frame)
    # where one picture ends and the next begins is part of it
    shifted = pd.DataFrame({"p": [b"ab", b"c"]}), pd.DataFrame({"p": [b"a", b"bc"]})
    assert table_digest(shifted[0]) != table_digest(shifted[1])


def test_tables_with_pictures_are_checked_and_learned_from_without_them():
    files = [encode_image(np.full((2, 2), n, np.uint8)) for n in range(8)]
    frame = settle_types(pd.DataFrame({"photo": files, "age": [1, 2] * 4, "kind": ["cat", "dog"] * 4}))
    report = validate_table(frame, target="kind")
    assert report.ok
    assert [column.kind for column in report.columns] == ["image", "integer", "category"]
    inferred = infer_columns(frame, "kind")
    assert [column.name for column in inferred.columns] == ["age"]
    assert "train_torch" in inferred.left_out["photo"]


def tensor(**changes):
    return {"name": "photo", "datatype": "UINT8", "shape": [2, 3, 4, 1], "data": [7] * 24, **changes}


AGES = {"name": "age", "datatype": "FP64", "shape": [2], "data": [1, 2]}


@pytest.mark.parametrize("data", [[7] * 24, np.full(24, 7.0), np.full((2, 3, 4, 1), 7).tolist()])
def test_pictures_come_as_one_tensor_of_pixels(data):
    ask = _asked([tensor(data=data), AGES], SIGNATURE, probabilities=False)
    assert isinstance(ask, Ask)
    assert len(ask) == 2
    assert ask.table["photo"].shape == (2, 3, 4, 1)


def test_pictures_come_as_one_tensor_of_texts():
    texts = [image_text(GREY)] * 2
    ask = _asked([tensor(datatype="BYTES", shape=[2, 1], data=texts), AGES], SIGNATURE, probabilities=False)
    assert ask.table["photo"] == texts


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [2, 4, 3, 1]}, "does not fit"),
        ({"data": [7] * 23}, r"'photo': its values do not fit the shape \[2, 3, 4, 1\]"),
        ({"data": ["x"] * 24}, "its values do not fit"),
    ],
)
def test_a_tensor_that_does_not_hold_the_pictures_is_refused(changes, says):
    with pytest.raises(RequestError, match=says):
        _asked([tensor(**changes), AGES], SIGNATURE, probabilities=False)
