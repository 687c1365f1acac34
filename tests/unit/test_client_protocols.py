"""What rows become in Seldon's and TensorFlow's protocols, and answers in them predictions; no server."""

import math

import pytest

from longshore.client.answers import by_row, single
from longshore.client.refusals import refused
from longshore.client.rpc import target_of
from longshore.client.seldon import _class, _content, _fill, _revision, as_data, read_data
from longshore.client.tensorflow import Input, as_inputs
from longshore.errors import DeployError, InputError, InvalidValue
from longshore.spec import Endpoint
from longshore.wire.tensorflow import FLOAT, INT64, STRING


@pytest.mark.parametrize(
    ("rows", "data"),
    [
        ([{"x": 1, "s": "a"}], {"names": ["x", "s"], "ndarray": [[1, "a"]]}),
        ([{"x": 1}, {"s": "a"}], {"names": ["x", "s"], "ndarray": [[1, None], [None, "a"]]}),
        ([[1, True]], {"names": [], "ndarray": [[1, True]]}),
        ([[1], [1, 2]], {"names": [], "ndarray": [[1], [1, 2]]}),
        ([{"x": 1, "y": 2.5}], {"names": ["x", "y"], "tensor": {"shape": [1, 2], "values": [1.0, 2.5]}}),
        ([[1, 2], [3, 4]], {"names": [], "tensor": {"shape": [2, 2], "values": [1.0, 2.0, 3.0, 4.0]}}),
    ],
)
def test_rows_as_a_message(rows, data):
    assert as_data(rows, tensors=True) == data
    assert "ndarray" in as_data(rows, tensors=False)


def test_a_gap_in_a_tensor_is_no_number():
    (value,) = as_data([{"x": None}], tensors=True)["tensor"]["values"]
    assert math.isnan(value)
    assert as_data([{"x": None}], tensors=False)["ndarray"] == [[None]]


@pytest.mark.parametrize(
    ("data", "predictions"),
    [
        ({"ndarray": ["a", "b"]}, ["a", "b"]),
        ({"ndarray": [[1], [2]]}, [1, 2]),
        ({"ndarray": [[0.5, 0.5], [1, 0]]}, [[0.5, 0.5], [1, 0]]),
        ({"tensor": {"shape": [2], "values": [1, 2]}}, [1, 2]),
        ({"tensor": {"shape": [2, 1], "values": [1, 2]}}, [1, 2]),
        ({"tensor": {"shape": ["2", "2"], "values": [1, 2, 3, 4]}}, [[1, 2], [3, 4]]),
    ],
)
def test_predictions_of_an_answer(data, predictions):
    assert read_data("http://m", {"data": data, "meta": {}}, 2) == predictions


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (None, "there is nothing"),
        ([1], "there is nothing"),
        ({"strData": "a", "meta": {}}, "without an ndarray or a tensor in 'data': there is strData"),
        ({"data": {}}, "there is data"),
        ({"data": {"ndarray": [1]}}, "2 rows were sent, and 1 predictions came back"),
        ({"data": {"tensor": {"shape": [3], "values": [1, 2, 3]}}}, r"2 rows were sent, and 3 values of shape \[3\]"),
        ({"data": {"tensor": {"shape": [2, 2], "values": [1, 2]}}}, r"2 values of shape \[2, 2\] came back"),
        ({"data": {"tensor": {"values": [1, 2]}}}, r"of shape \[\]"),
        ({"status": {"status": "FAILURE", "info": "it broke"}, "data": {"ndarray": [1, 2]}}, "answered: it broke"),
        ({"status": {"status": 1, "reason": "BAD"}}, "answered: BAD"),
    ],
)
def test_an_answer_without_predictions(message, words):
    with pytest.raises(DeployError, match=words):
        read_data("http://m", message, 2)


def test_a_message_there_and_back():
    content = {
        "data": {"names": ["a"], "ndarray": [["x", 1.0, None, True]]},
        "meta": {
            "puid": "p",
            "tags": {"version": "3", "many": [1.0, {"a": None}]},
            "routing": {"router": 1, "other": -1},
            "requestPath": {"m": "image:1"},
        },
    }
    message = _class("SeldonMessage")()
    _fill(message, content)
    assert _content(_class("SeldonMessage").FromString(message.SerializeToString())) == content
    for content in (
        {"meta": {}, "data": {"names": [], "tensor": {"shape": [1, 2], "values": [1.0, 2.0]}}},
        {"meta": {}, "jsonData": {"a": [1.0]}},
        {"meta": {}, "strData": "a"},
    ):
        message = _class("SeldonMessage")()
        _fill(message, content)
        assert _content(message) == content
    failed = _class("SeldonMessage")(status={"code": 3, "info": "no", "status": 1})
    assert _content(failed)["status"] == {"code": 3, "info": "no", "reason": "", "status": "FAILURE"}


@pytest.mark.parametrize(
    ("told", "revision"),
    [
        ({"custom": {"revision": "m-2"}}, "m-2"),
        ({"name": "main", "models": {"m": {"custom": {"revision": "m-3"}}, "other": {}}}, "m-3"),
        ({"models": {"other": {}}}, "m-1"),
        ({"custom": {}}, "m-1"),
        (None, "m-1"),
        ([], "m-1"),
    ],
)
def test_the_revision_that_metadata_tells(told, revision):
    endpoint = Endpoint(name="m", url="http://m", model="m", revision="m-1", protocols=("seldon",))
    assert _revision(told, endpoint) == revision


def test_seldons_words():
    body = '{"status": {"code": 400, "info": "row 0: no", "reason": "MICROSERVICE_BAD_DATA", "status": 1}}'
    error = refused("http://m", 400, body)
    assert (type(error), "answered 400: row 0: no" in str(error)) == (InputError, True)


X = Input(name="x", dtype=FLOAT, rank=2)
N = Input(name="n", dtype=INT64, rank=1)
S = Input(name="s", dtype=STRING, rank=None)


def shown(tensors):
    return {name: (tensor.shape, tensor.values) for name, tensor in tensors.items()}


def test_rows_as_inputs():
    assert shown(as_inputs([{"n": 2.0, "x": 1, "s": "a"}, {"s": "b", "x": 2, "n": 3}], [X, N, S])) == {
        "x": ([2, 1], [1, 2]),
        "n": ([2], [2, 3]),
        "s": ([2], ["a", "b"]),
    }
    assert shown(as_inputs([{"x": [1, 2]}, {"x": [3, 4]}], [X])) == {"x": ([2, 2], [1, 2, 3, 4])}
    assert shown(as_inputs([{"b": 1, "a": 2}, {"a": 4, "b": 3}], [X])) == {"x": ([2, 2], [1, 2, 3, 4])}
    image = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert shown(as_inputs(image, [X])) == {"x": ([2, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8])}
    (gap,) = as_inputs([{"x": None}], [X])["x"].values
    assert math.isnan(gap)


@pytest.mark.parametrize(
    ("rows", "inputs", "words"),
    [
        ([[1, 2]], [X, N], "takes the inputs n, x"),
        ([{"x": 1, "n": 1, "z": 1}], [X, N], "takes the inputs n, x"),
        ([[1, 2], [3]], [X], r"input 'x': the rows are not all as long: \[1, 2\]"),
        ([{"a": 1, "b": 2}, {"a": 1}], [X], "row 1 has no column 'b'"),
        ([{"a": 1}, [1]], [X], "row 1 has no column 'a'"),
        ([{"n": None}], [N], "input 'n': value 0 is missing, and DT_INT64 has no gaps"),
    ],
)
def test_rows_that_are_no_inputs(rows, inputs, words):
    with pytest.raises(InputError, match=words):
        as_inputs(rows, inputs)


def test_values_by_row():
    assert by_row("m", [1, 2, 3, 4], [2, 2], 2) == [[1, 2], [3, 4]]
    assert by_row("m", [1, 2], [2, 1], 2) == [1, 2]
    assert by_row("m", [1, 2], [1, 2], 1) == [[1, 2]]
    assert single([[1], [2]]) == [1, 2]
    assert single([[1], [2, 3]]) == [[1], [2, 3]]


def test_where_grpc_is_spoken():
    endpoint = Endpoint(
        name="m",
        url="https://203.0.113.7/seldon/ns/m",
        grpc_url="https://203.0.113.7",
        model="m",
        revision="r",
        headers={"Host": "m.example.com", "seldon": "m", "namespace": "ns"},
    )
    target = target_of(endpoint)
    assert (target.address, target.secure) == ("203.0.113.7:443", True)
    assert dict(target.metadata) == {"seldon": "m", "namespace": "ns"}
    assert dict(target.options)["grpc.default_authority"] == "m.example.com"
    with pytest.raises(InvalidValue, match="gRPC has no paths"):
        target_of(Endpoint(name="m", url="http://m/seldon/ns/m", model="m", revision="r"))
