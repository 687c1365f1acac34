"""The client over TensorFlow Serving's protocol.

A stand-in answers, from the published protocol: the binary is in no registry. Where LONGSHORE_TEST_TENSORFLOW_SERVING
names a real one as HOST:GRPC_PORT:REST_PORT, which serves ``half_plus_two`` of TensorFlow Serving's own test data, the
tests that take no more than that ask it instead.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longshore.client import Client, predict, probe, replay
from longshore.client.tensorflow import model_inputs
from longshore.errors import DeployError, InputError
from longshore.spec import Endpoint

SERVER = Path(__file__).parent / "parts" / "tensorflow" / "server.py"
PROTOCOLS = ("tensorflow", "grpc-tensorflow")


def endpoint_at(host, grpc, rest):
    return Endpoint(
        name="half",
        url=f"http://{host}:{rest}",
        grpc_url=f"http://{host}:{grpc}",
        model="half_plus_two",
        revision="half-1",
        protocols=(*PROTOCOLS, "grpc-v1"),
        takes="tensors",
    )


@pytest.fixture(scope="module")
def standin():
    command = [sys.executable, SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            told = json.loads(process.stdout.readline())
            yield endpoint_at("127.0.0.1", told["grpc"], told["rest"])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def half_plus_two(request):
    real = os.environ.get("LONGSHORE_TEST_TENSORFLOW_SERVING")
    return endpoint_at(*real.split(":")) if real else request.getfixturevalue("standin")


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "grpc-v1"])
def test_rows_of_any_kind_are_predicted(half_plus_two, protocol):
    with Client(half_plus_two, protocol=protocol) as client:
        assert client.answering() == "half-1"
        assert client.predict([{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]) == [2.5, 3.0, 4.5]
        assert client.predict(pd.DataFrame({"x": [1, 2]})) == [2.5, 3.0]
    report = replay(half_plus_two, [{"x": 1.0}] * 3, None, protocol=protocol)
    assert (report.requests, report.failed) == (3, 0)
    probe(half_plus_two, [{"x": 1.0}, {"x": 3.0}], None, protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_refused_is_told(half_plus_two, protocol):
    with Client(half_plus_two, protocol=protocol) as client:
        with pytest.raises(InputError):
            client.predict([{"x": "wide"}])
        assert client.predict([{"x": 1.0}]) == [2.5]
    other = replace(half_plus_two, model="other")
    with Client(other, protocol=protocol) as client:
        with pytest.raises(InputError, match="(?i)not found"):
            client.predict([{"x": 1.0}])
        assert client.answering() in (None, "half-1")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_version_or_a_label_is_part_of_the_models_name(standin, protocol):
    for path in ("versions/123", "labels/stable"):
        named = replace(standin, model=f"half_plus_two/{path}")
        assert predict(named, [{"x": 1.0}], protocol=protocol) == [2.5]
    with pytest.raises(InputError, match="not found"):
        predict(replace(standin, model="half_plus_two/versions/7"), [{"x": 1.0}], protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whole_rows_are_the_rows_of_the_only_input(standin, protocol):
    whole = replace(standin, model="whole")
    rows = [[1.0, 2, 3, 4], [2, 2, 2, 2.0]]
    expected = [pytest.approx([0.1, 0.2, 0.3]), pytest.approx([0.25] * 3)]
    assert predict(whole, rows, protocol=protocol) == expected
    assert predict(whole, np.array(rows), protocol=protocol) == expected
    assert predict(whole, [dict(zip("abcd", row, strict=True)) for row in rows], protocol=protocol) == expected
    with pytest.raises(InputError, match="the rows are not all as long"):
        predict(whole, [[1.0, 2, 3, 4], [1.0]], protocol=protocol)
    with pytest.raises(InputError, match="dense_input expects"):
        predict(whole, [[1.0, 2.0]], protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_columns_are_an_input_each_of_their_types(standin, protocol):
    columns = replace(standin, model="columns")
    rows = [{"n": 2.0, "a": 1, "s": "x"}, {"n": 3, "a": 0.5, "s": "ü"}]
    answers = [{"score": 3.0, "label": "x!"}, {"score": 3.5, "label": "ü!"}]
    assert predict(columns, rows, protocol=protocol) == answers
    with pytest.raises(InputError, match="takes the inputs a, n, s: send rows that are mappings from them"):
        predict(columns, [{"a": 1}], protocol=protocol)
    with pytest.raises(InputError, match="input 'n': value 1 is missing, and DT_INT64 has no gaps"):
        predict(columns, [rows[0], {**rows[1], "n": None}], protocol=protocol)
    with pytest.raises(InputError, match="row 1 has no column 's'"):
        predict(columns, [rows[0], {"n": 1, "a": 1}], protocol=protocol)
    with pytest.raises(InputError):
        predict(columns, [{**rows[0], "n": 1.5}], protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_answers(standin, protocol):
    nowhere = replace(standin, url="http://127.0.0.1:1", grpc_url=None)
    with Client(nowhere, protocol=protocol) as client:
        assert client.answering() is None
        with pytest.raises(DeployError, match="did not answer|UNAVAILABLE"):
            client.predict([{"x": 1.0}])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_label_that_the_server_does_not_know_answers_nobody(standin, protocol):
    """The status of a model is told whatever label is asked for."""
    for label, revision in (("stable", "half-1"), ("canary", None)):
        with Client(replace(standin, model=f"half_plus_two/labels/{label}"), protocol=protocol) as client:
            assert client.answering() == revision
    with pytest.raises(InputError, match="Unrecognized servable version label: canary"):
        predict(replace(standin, model="half_plus_two/labels/canary"), [{"x": 1.0}], protocol=protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_of_several_outputs_is_judged(standin, protocol):
    columns = replace(standin, model="columns", protocols=(protocol,))
    rows = [{"n": 2.0, "a": 1, "s": "x"}, {"n": 3, "a": 0.5, "s": "y"}]
    probe(columns, rows, ["x!", "y!"], output="label")
    assert replay(columns, rows, None, output="score").failed == 0
    with pytest.raises(DeployError, match="which is no class of the model"):
        probe(columns, rows, ["x!", "z!"], output="label")
    with pytest.raises(DeployError, match="predicts None"):
        probe(columns, rows, None, output="nothing")


def test_what_a_model_takes_is_told_over_both(standin):
    for protocol in PROTOCOLS:
        taken = model_inputs(replace(standin, model="columns", protocols=(protocol,)))
        assert {(one.name, one.rank) for one in taken} == {("a", 2), ("n", 2), ("s", 2)}
