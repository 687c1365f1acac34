"""Malformed requests, ten thousand of them, made by hypothesis: a real server refuses each, and none is its own fault.

Starts ``python -m longshore.serving`` as a process.
"""

import copy
import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longshore.packaging import save_model
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
ROW = {"island": "Torgersen", "bill_length_mm": 39.1, "body_mass_g": 3750, "year": 2007, "born": "2007-11-11"}
KINDS = {"island": "BYTES", "bill_length_mm": "FP64", "body_mass_g": "INT64", "year": "INT64", "born": "BYTES"}
VALID = {
    "/v1/models/penguins:predict": {"instances": [ROW, list(ROW.values())], "parameters": {"probabilities": True}},
    "/v2/models/penguins/infer": {
        "id": "7",
        "inputs": [
            {"name": name, "shape": [2, 1], "datatype": KINDS[name], "data": [value, value]}
            for name, value in ROW.items()
        ],
        "outputs": [{"name": "predict"}, {"name": "predict_proba"}],
    },
}

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [2**63, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324, "", "nan", "2007-13-45", "9999-12-31T23:59:59Z"]
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=3),
    # made anew each time, since they may be changed in turn
    st.builds(lambda: [[]]),
    st.builds(lambda: [{}]),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    table = read_table(str(PENGUINS))[["island", "bill_length_mm", "body_mass_g", "year", "species"]]
    table["born"] = [f"{year}-11-{1 + index % 28:02}" for index, year in enumerate(table["year"])]
    trained = train_sklearn(table, target="species", estimator="sklearn.linear_model.LogisticRegression")
    place = tmp_path_factory.mktemp("server")
    save_model(place / "penguins", trained.model, trained.card)
    command = [sys.executable, "-m", "longshore.serving", f"--model={place / 'penguins'}", "--name=penguins"]
    with (
        (place / "log").open("wb") as log,
        subprocess.Popen([*command, "--revision=penguins-1"], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while (found := re.search(r"is ready on port (\d+)", (place / "log").read_text())) is None:
                assert process.poll() is None, (place / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield int(found[1]), place / "log"
        finally:
            process.terminate()
            assert process.wait(30) == 0


def places(content, path=()):
    """Where in a request something can be changed."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def requests(draw):
    """A request that was valid until something happened to it: a path, headers and a body."""
    path = draw(st.sampled_from(sorted(VALID)))
    content = copy.deepcopy(VALID[path])
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(sorted(set(places(content)) - {()}, key=repr)))
        parent = content
        for key in way:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "remove", "rename"]))
        if action == "replace":
            parent[last] = draw(ODD)
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = parent.pop(last)
        if not content or not isinstance(content, dict):
            break
    body = json.dumps(content).encode()
    damage = draw(st.sampled_from(["none"] * 6 + ["cut", "byte", "large"]))
    if damage == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif damage == "byte":
        position = draw(st.integers(0, len(body) - 1))
        body = body[:position] + draw(st.binary(min_size=1, max_size=2)) + body[position + 1 :]
    elif damage == "large":
        # the other way in, for bodies of some size
        body = body[:-1] + b" " * 40_000 + body[-1:]
    headers = {"Content-Type": draw(st.sampled_from(["application/json", "text/plain", "application/octet-stream"]))}
    if draw(st.integers(0, 9)) == 0:
        headers["Inference-Header-Content-Length"] = str(draw(st.integers(-1, 2 * len(body))))
    return path, headers, body


def test_no_malformed_request_is_the_servers_fault(server):
    port, log = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    seen = Counter()

    @settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def ask(request):
        path, headers, body = request
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        seen[answer.status] += 1
        assert answer.status < 500, (request, content)
        if answer.status != 200:
            assert list(json.loads(content)) == ["error"]

    ask()
    connection.close()
    # it is mostly refused, and not all of it at the door
    assert seen[400] > 5000
    assert seen[200] > 100
    said = log.read_text()
    assert "Traceback" not in said, said[-5000:]
