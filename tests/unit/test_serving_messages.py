"""The messages of gRPC, byte for byte."""

import struct

import pytest

from longshore.serving.messages import HEALTH, INFERENCE, message


def test_the_bytes_are_those_of_the_protocol():
    """As protoc writes them for the published protocol; the fields that are left out here are skipped."""
    infer, answered = message(INFERENCE, "ModelInferRequest"), message(INFERENCE, "ModelInferResponse")
    parameter = b"\x22\x09\x0a\x01k\x12\x04\x1a\x02ab"
    tensor = b"\x0a\x01x\x12\x04FP64\x1a\x01\x02" + parameter + b"\x2a\x12\x3a\x10" + struct.pack("<2d", 1, 2)
    body = (
        b"\x0a\x01m\x12\x013\x1a\x01i"
        + parameter
        + b"\x2a"
        + bytes([len(tensor)])
        + tensor
        + b"\x32\x03\x0a\x01y\x3a\x01z"
    )
    read = infer.FromString(body)
    assert (read.model_name, read.model_version, read.id) == ("m", "3", "i")
    (one,) = read.inputs
    assert (one.name, one.datatype, list(one.shape), list(one.contents.fp64_contents)) == ("x", "FP64", [2], [1, 2])
    assert [output.name for output in read.outputs] == ["y"]
    assert list(read.raw_input_contents) == [b"z"]
    written = answered(
        model_name="m",
        model_version="3",
        id="i",
        outputs=[{"name": "y", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [7]}}],
        raw_output_contents=[b"z"],
    ).SerializeToString()
    output = b"\x0a\x01y\x12\x05INT64\x1a\x01\x01\x2a\x03\x1a\x01\x07"
    assert written == b"\x0a\x01m\x12\x013\x1a\x01i\x2a" + bytes([len(output)]) + output + b"\x32\x01z"


def test_an_unknown_message_is_refused():
    assert message(HEALTH, "HealthCheckResponse")(status=1).SerializeToString() == b"\x08\x01"
    with pytest.raises(KeyError):
        message(HEALTH, "ModelInferRequest")
