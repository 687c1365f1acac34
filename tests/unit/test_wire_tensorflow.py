"""TensorFlow's tensors, there and back."""

import struct
from types import SimpleNamespace

import pytest

from longshore.wire.messages import TENSORFLOW, message
from longshore.wire.tensorflow import TYPES, nested, read_tensor, tensor_fields

NUMBERS = {type_.name: number for number, type_ in TYPES.items()}


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in ("DT_STRING", "DT_BOOL")])
def test_numbers_there_and_back(name):
    tensor = message(TENSORFLOW, "TensorProto")(**tensor_fields(NUMBERS[name], [2, 2], [1, 2, 3, 4]))
    assert read_tensor(message(TENSORFLOW, "TensorProto").FromString(tensor.SerializeToString())) == (
        [1, 2, 3, 4],
        [2, 2],
    )


def test_texts_and_booleans_there_and_back():
    proto = message(TENSORFLOW, "TensorProto")
    assert read_tensor(proto(**tensor_fields(NUMBERS["DT_STRING"], [2], ["a", "ü"]))) == ([b"a", "ü".encode()], [2])
    assert read_tensor(proto(**tensor_fields(NUMBERS["DT_BOOL"], [2], [True, False]))) == ([True, False], [2])


@pytest.mark.parametrize(
    ("name", "fields", "values"),
    [
        ("DT_FLOAT", {"float_val": [1.5, 2]}, [1.5, 2]),
        ("DT_INT16", {"int_val": [-1, 2]}, [-1, 2]),
        ("DT_UINT64", {"uint64_val": [1, 2**63]}, [1, 2**63]),
        ("DT_HALF", {"half_val": [0x3C00, 0xC000]}, [1, -2]),
        # what is alike at the end is sent once
        ("DT_DOUBLE", {"double_val": [7]}, [7, 7]),
        ("DT_STRING", {"string_val": [b"a", b"b"]}, [b"a", b"b"]),
    ],
)
def test_values_in_lists(name, fields, values):
    tensor = message(TENSORFLOW, "TensorProto")(dtype=NUMBERS[name], tensor_shape={"dim": [{"size": 2}]}, **fields)
    assert read_tensor(tensor) == (values, [2])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dtype": 8, "float_val": [1]}, "its dtype is 8"),
        ({"dtype": 1, "float_val": [1, 2, 3]}, r"holds 3 values, and its shape is \[2\]"),
        ({"dtype": 1}, "holds 0 values"),
        ({"dtype": 2, "tensor_content": b"1234567"}, "7 bytes is no whole number of DT_DOUBLE"),
        ({"dtype": 7, "tensor_content": b"a"}, "no whole number of DT_STRING"),
        ({"dtype": 2, "tensor_content": struct.pack("<d", 1)}, "holds 1 values"),
    ],
)
def test_a_tensor_that_is_none(fields, words):
    tensor = message(TENSORFLOW, "TensorProto")(tensor_shape={"dim": [{"size": 2}]}, **fields)
    with pytest.raises(ValueError, match=words):
        read_tensor(tensor)
    assert read_tensor(message(TENSORFLOW, "TensorProto")(dtype=1, float_val=[1])) == ([1], [])


def test_a_few_bytes_do_not_become_gigabytes():
    tensor = message(TENSORFLOW, "TensorProto")(
        dtype=1, float_val=[0], tensor_shape={"dim": [{"size": 2**31}, {"size": 2**31}]}
    )
    with pytest.raises(ValueError, match="holds 1 values"):
        read_tensor(tensor)


def test_a_shape_with_a_negative_size_is_refused():
    shape = SimpleNamespace(dim=[SimpleNamespace(size=-1), SimpleNamespace(size=-2)])
    with pytest.raises(ValueError, match="its shape is"):
        read_tensor(SimpleNamespace(dtype=1, tensor_shape=shape, tensor_content=b"", float_val=[1, 2]))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("DT_STRING", ["a", 1], "1 is no text"),
        ("DT_INT32", [1, 2.5], "not all values are DT_INT32"),
        ("DT_INT8", [1, 1000], "not all values are DT_INT8"),
        ("DT_FLOAT", [1, None], "not all values are DT_FLOAT"),
        ("DT_FLOAT", [1, 1e300], "not all values are DT_FLOAT"),
    ],
)
def test_values_of_another_type_are_refused(name, values, words):
    with pytest.raises(ValueError, match=words):
        tensor_fields(NUMBERS[name], [2], values)


def test_lists_of_lists():
    assert nested([1, 2, 3, 4, 5, 6], [3, 2]) == [[1, 2], [3, 4], [5, 6]]
    assert nested([1, 2, 3, 4], [1, 2, 2]) == [[[1, 2], [3, 4]]]
    assert nested([], [0, 3]) == []
