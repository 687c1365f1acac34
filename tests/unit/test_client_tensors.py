"""What the client makes of rows before it sends them, and of refusals."""

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from longshore.client import Access, Client, as_rows
from longshore.client.refusals import refused
from longshore.client.tensors import as_tensors, without_gaps
from longshore.errors import ConfigError, DeployError, InputError, InvalidValue
from longshore.spec import Endpoint

NAN = float("nan")


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ([{"x": 1, "y": "a"}], [{"x": 1, "y": "a"}]),
        ([{"x": NAN}, {"x": None}], [{"x": None}, {"x": None}]),
        ([{"x": np.float64(1.5), "n": np.int64(2), "b": np.bool_(True)}], [{"x": 1.5, "n": 2, "b": True}]),
        ([{"x": pd.NA, "t": pd.NaT}], [{"x": None, "t": None}]),
        (
            [{"t": dt.date(2024, 5, 17)}, {"t": pd.Timestamp("2024-05-17T08:30")}],
            [{"t": "2024-05-17"}, {"t": "2024-05-17T08:30:00"}],
        ),
        ([{"x": Decimal("1.5")}], [{"x": 1.5}]),
        ([[1, NAN], (2, 3)], [[1, None], [2, 3]]),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), [[1.0, 2.0], [3.0, None]]),
        (pd.DataFrame({"x": [1, 2], "y": ["a", None]}), [{"x": 1, "y": "a"}, {"x": 2, "y": None}]),
        ([], []),
    ],
)
def test_rows_become_plain_values(table, rows):
    assert as_rows(table) == rows


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ([{"x": float("inf")}], "row 0, column 'x' is infinite"),
        ([{"x": 1}, {"x": object()}], "row 1, column 'x' is a object: send a number"),
        (["abc"], "row 0 is 'abc': use a mapping"),
        ([3], "row 0 is 3: use a mapping"),
    ],
)
def test_what_no_model_takes_is_refused_here(table, said):
    with pytest.raises(InputError, match=said):
        as_rows(table)


@pytest.mark.parametrize(
    ("rows", "tensors"),
    [
        ([{"x": 1}, {"x": 2}], [("x", "INT64", (2, 1), [1, 2])]),
        ([{"x": 1}, {"x": 2.5}], [("x", "FP64", (2, 1), [1, 2.5])]),
        ([{"x": 1}, {"x": None}], [("x", "FP64", (2, 1), [1, None])]),
        ([{"x": None}], [("x", "FP64", (1, 1), [None])]),
        ([{"x": "a"}, {"x": None}], [("x", "BYTES", (2, 1), ["a", None])]),
        ([{"x": True}], [("x", "BOOL", (1, 1), [True])]),
        ([{"x": 1}, {"y": "a"}], [("x", "FP64", (2, 1), [1, None]), ("y", "BYTES", (2, 1), [None, "a"])]),
        ([[1, 2.5], [3, 4]], [("input-0", "FP64", (2, 2), [1, 2.5, 3, 4])]),
    ],
)
def test_rows_as_tensors(rows, tensors):
    assert [(t.name, t.datatype, t.shape, t.data) for t in as_tensors(rows)] == tensors


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"x": "a"}, {"x": 1}], "column 'x' has values of several types"),
        ([{"x": True}, {"x": 1}], "column 'x' has values of several types"),
        ([[1, 2], [3]], "the rows have different columns"),
        ([[1], {"x": 1}], "the rows have different columns"),
    ],
)
def test_rows_that_are_no_tensors(rows, said):
    with pytest.raises(InputError, match=said):
        as_tensors(rows)


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([{"x": 1}, {"x": None}], [[0, 1]]),
        ([{"s": "a"}, {"s": None}, {"s": "b"}], [[0, 2], [1]]),
        ([{"s": "a", "b": None}, {"s": None, "b": True}, {"s": None, "b": None}], [[0], [1], [2]]),
        ([[1, None]], [[0]]),
    ],
)
def test_rows_are_grouped_where_a_tensor_could_not_have_a_gap(rows, groups):
    assert without_gaps(rows) == groups


@pytest.mark.parametrize(
    ("status", "body", "location", "kind", "said"),
    [
        (400, '{"error": "row 0: no"}', None, InputError, "answered 400: row 0: no"),
        (404, '{"detail": "Not Found"}', None, InputError, "answered 404: Not Found"),
        (404, "", None, InputError, "the host header tells"),
        (401, "", None, DeployError, "no reason given: give a token"),
        (403, "RBAC: access denied", None, DeployError, "RBAC: access denied: give a token"),
        (429, "slow down", None, DeployError, "429: slow down"),
        (
            302,
            "",
            "https://dex/auth?state=secret",
            DeployError,
            "sends clients to https://dex/auth: if that is a login",
        ),
        (502, "<html>" + "x" * 400, None, DeployError, "answered 502: <html>xxx"),
    ],
)
def test_a_refusal_says_whose_fault_it_is(status, body, location, kind, said):
    error = refused("http://m/predict", status, body, location)
    assert type(error) is kind
    assert said in str(error)
    assert "secret" not in str(error)
    assert len(str(error)) < 300


def test_a_token_is_shown_nowhere(tmp_path):
    assert "geheim" not in repr(Access(token="geheim"))
    assert Access(token="geheim").headers() == {"Authorization": "Bearer geheim"}
    calls = iter(["one", "two"])
    access = Access(token=lambda: next(calls))
    assert [access.headers()["Authorization"] for _ in range(2)] == ["Bearer one", "Bearer two"]
    file = tmp_path / "token"
    file.write_text("first\n")
    access = Access(token_file=file)
    assert access.headers() == {"Authorization": "Bearer first"}
    file.write_text("second\n")
    assert access.headers() == {"Authorization": "Bearer second"}
    for bad in ("", "a\nb: c", "ü"):
        with pytest.raises(ConfigError, match="holds no bearer token") as caught:
            Access(token=bad).headers()
        assert "b: c" not in str(caught.value)
    assert Access().headers() == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"token": "a", "token_file": "b"}, "not both"),
        ({"key_file": "k"}, "give cert_file with it"),
    ],
)
def test_access_that_contradicts_itself(given, said):
    with pytest.raises(InvalidValue, match=said):
        Access(**given)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="the token in .*nowhere cannot be read"):
        Access(token_file=tmp_path / "nowhere").headers()
    with pytest.raises(ConfigError, match=r"no TLS with .*ca\.pem"):
        Access(ca_file=tmp_path / "ca.pem").trust()


ENDPOINT = Endpoint(name="m", url="http://m", model="m", revision="r", protocols=("v1", "v2"))


@pytest.mark.parametrize(
    ("spoken", "wanted", "said"),
    [
        (("v1", "v2"), "v3", "use one of v1, v2, grpc-v2"),
        (("v1", "v2"), "grpc-v2", "m speaks v1, v2"),
        (("openai",), None, "m speaks openai, .* use a client of OpenAI's API"),
        (("its-own",), None, "rows can be asked for in v1, v2, grpc-v2, seldon"),
    ],
)
def test_a_protocol_that_is_not_spoken(spoken, wanted, said):
    endpoint = Endpoint(name="m", url="http://m", model="m", revision="r", protocols=spoken)
    with pytest.raises(ConfigError, match=said):
        Client(endpoint, protocol=wanted)


def test_an_endpoint_behind_an_ingress():
    known = Endpoint(
        name="m",
        url="http://m.ns.svc.cluster.local",
        model="m",
        revision="r",
        revision_url="http://m-r",
        grpc_url="http://m.ns.svc.cluster.local:9000",
        external_url="http://m-ns.example.com",
        headers={"x-user": "a"},
    )
    seen = known.through("https://203.0.113.7")
    assert (seen.url, seen.revision_url, seen.grpc_url) == ("https://203.0.113.7", None, None)
    assert dict(seen.headers) == {"x-user": "a", "Host": "m-ns.example.com"}
    assert dict(known.through("http://10.0.0.1:8080", "other.example.com").headers)["Host"] == "other.example.com"
    with pytest.raises(InvalidValue, match="say how it is known"):
        ENDPOINT.through("http://10.0.0.1")


def test_an_endpoint_behind_an_ingress_that_knows_it_by_path_or_headers():
    by_path = Endpoint(
        name="m",
        url="http://m-main.ns.svc:8000",
        model="m",
        revision="r",
        ingress_path="/seldon/ns/m",
        protocols=("seldon", "grpc-seldon"),
        headers={"seldon": "m", "namespace": "ns"},
    )
    seen = by_path.through("https://203.0.113.7/")
    assert (seen.url, seen.grpc_url) == ("https://203.0.113.7/seldon/ns/m", "https://203.0.113.7/")
    assert seen.headers == by_path.headers
    assert dict(by_path.through("http://10.0.0.1", "m.example.com").headers)["Host"] == "m.example.com"
    by_header = replace(by_path, ingress_path="", headers={"seldon-model": "m.experiment"})
    seen = by_header.through("http://10.0.0.1")
    assert (seen.url, seen.grpc_url, dict(seen.headers)) == ("http://10.0.0.1", None, {"seldon-model": "m.experiment"})
    with pytest.raises(InvalidValue, match="begin it with a slash"):
        replace(by_path, ingress_path="seldon")
