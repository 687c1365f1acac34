"""Tensors as bytes: what is read, written and refused."""

import json

import numpy as np
import pytest

from longshore.serving import tensors
from longshore.serving.refusals import RequestError


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("INT8", [-1, 2]),
        ("INT64", [-(2**60), 2]),
        ("UINT16", [0, 65535]),
        ("FP16", [0.5, -1.0]),
        ("FP32", [0.5, -1.0]),
        ("FP64", [0.1, -1e300]),
        ("BYTES", ["", "ä", "two words"]),
    ],
)
def test_what_is_packed_is_unpacked(datatype, values):
    assert list(tensors.unpack("x", datatype, tensors.pack(datatype, values))) == values


@pytest.mark.parametrize(
    ("datatype", "raw", "why"),
    [
        ("FP64", b"1234567", "7 raw bytes are no whole number of FP64 values"),
        ("BYTES", b"\x05\x00\x00\x00abc", "the raw bytes end within value 0"),
        ("BYTES", b"\x00\x00\x00\x00\x01", "the raw bytes end within value 1"),
        ("BYTES", b"\x01\x00\x00\x00\xff", "a value is not UTF-8"),
    ],
)
def test_bytes_that_are_no_values_are_refused(datatype, raw, why):
    with pytest.raises(RequestError, match=f"input 'x': {why}") as caught:
        tensors.unpack("x", datatype, raw)
    assert caught.value.status == 400


def request(*inputs, raw=b"", length=None, **more):
    head = json.dumps({"inputs": list(inputs), **more}).encode()
    return head + raw, str(len(head) if length is None else length).encode()


def tensor(name="x", size=16, **changes):
    return {"name": name, "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": size}, **changes}


def test_binary_data_stands_behind_the_json_in_the_order_of_the_inputs():
    raw = np.array([1.5, 2.5]).tobytes() + tensors.pack("BYTES", ["a", "b"])
    plain = {"name": "y", "shape": [2], "datatype": "INT64", "data": [1, 2]}
    strings = tensor("z", 10, datatype="BYTES")
    content = tensors.split(*request(tensor(), plain, strings, raw=raw, id="7"))
    assert content["id"] == "7"
    first, second, third = (one["data"] for one in content["inputs"])
    assert (first.tolist(), second, third) == ([1.5, 2.5], [1, 2], ["a", "b"])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (request(tensor(), raw=b"\0" * 8), "there are no 16 bytes of binary data left for it"),
        (request(tensor(size=-1)), "there are no -1 bytes"),
        (request(tensor(size=True)), "there are no True bytes"),
        (request(tensor(size="16"), raw=b"\0" * 16), "there are no 16 bytes"),
        (request(tensor(), raw=b"\0" * 17), "1 bytes of binary data belong to no input"),
        (request(tensor(datatype="FP65"), raw=b"\0" * 16), "datatype 'FP65' is unknown"),
        (request(tensor(datatype=["FP64"]), raw=b"\0" * 16), "datatype .'FP64'. is unknown"),
        (request(tensor(), length=10**6), "Inference-Header-Content-Length is 1000000, and the body has"),
        (request(tensor(), length="-1"), "Inference-Header-Content-Length is -1"),
        (request(tensor(), raw=b"\0" * 16, length=5), "the body is not JSON"),
    ],
)
def test_json_and_bytes_that_do_not_fit_are_refused(body, why):
    with pytest.raises(RequestError, match=why) as caught:
        tensors.split(*body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("content", "binary"),
    [
        ({}, set()),
        ({"outputs": [{"name": "predict"}]}, set()),
        ({"outputs": [{"name": "predict", "parameters": {"binary_data": True}}]}, {"predict"}),
        ({"outputs": [{"name": "predict", "parameters": {"binary_data": False}}]}, set()),
        ({"parameters": {"binary_data_output": True}}, {"*"}),
        ({"parameters": {"binary_data_output": 1}, "outputs": "none"}, set()),
        ({"parameters": [], "outputs": [7, {"name": ["x"], "parameters": {"binary_data": True}}]}, set()),
    ],
)
def test_outputs_are_binary_where_a_request_says_so(content, binary):
    assert tensors.binary_outputs(content) == binary


def test_an_answer_has_its_json_first():
    outputs = [
        {"name": "a", "datatype": "FP64", "shape": [1], "data": [0.5]},
        {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["x"]},
    ]
    body, length = tensors.join({"id": "7", "outputs": outputs}, {"b"})
    head = json.loads(body[:length])
    assert head["outputs"][0] == outputs[0]
    assert head["outputs"][1] == {
        "name": "b",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": 5},
    }
    assert body[length:] == tensors.pack("BYTES", ["x"])
    body, length = tensors.join({"outputs": outputs}, {"*"})
    assert len(body) - length == 8 + 5
