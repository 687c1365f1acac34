"""The messages of gRPC, byte for byte."""

import struct

import pytest

from longshore.wire.messages import HEALTH, INFERENCE, SELDON, TENSORFLOW_SERVING, message
from longshore.wire.tensorflow import FLOAT, tensor_fields


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


def test_seldons_messages_are_those_of_its_protocol():
    """Tags and routes are maps there, and a map is sent as a list of its entries."""
    sent = message(SELDON, "Feedback")(
        request={"data": {"names": ["x"], "tensor": {"shape": [1, 1], "values": [2]}}},
        response={
            "meta": {"tags": [{"key": "v", "value": {"string_value": "3"}}], "routing": [{"key": "r", "value": 1}]}
        },
        reward=0.5,
    )
    data = b"\x0a\x01x\x12\x0e\x0a\x02\x01\x01\x12\x08" + struct.pack("<d", 2)
    meta = b"\x12\x08\x0a\x01v\x12\x03\x1a\x013" + b"\x1a\x05\x0a\x01r\x10\x01"
    request, response = b"\x1a" + bytes([len(data)]) + data, b"\x12" + bytes([len(meta)]) + meta
    assert sent.SerializeToString() == (
        b"\x0a"
        + bytes([len(request)])
        + request
        + b"\x12"
        + bytes([len(response)])
        + response
        + b"\x1d"
        + struct.pack("<f", 0.5)
    )


def test_tensorflows_messages_are_those_of_its_protocol():
    tensor = tensor_fields(FLOAT, [1, 2], [1.5, 2])
    sent = message(TENSORFLOW_SERVING, "PredictRequest")(
        model_spec={"name": "m", "version": {"value": 3}, "signature_name": "s"}, inputs=[{"key": "x", "value": tensor}]
    )
    value = b"\x08\x01\x12\x08\x12\x02\x08\x01\x12\x02\x08\x02" + b"\x22\x08" + struct.pack("<2f", 1.5, 2)
    entry = b"\x0a\x01x\x12" + bytes([len(value)]) + value
    assert sent.SerializeToString() == (
        b"\x0a\x0a\x0a\x01m\x12\x02\x08\x03\x1a\x01s" + b"\x12" + bytes([len(entry)]) + entry
    )
