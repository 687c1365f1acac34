"""Writing requests down: what stands in the files, how they are cut, and what becomes of them."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from longshore.errors import ConfigError, InvalidValue
from longshore.packaging import load_model, save_model
from longshore.serving import Application, Predictor
from longshore.serving.capture import Capture
from longshore.serving.core import Ask, Tensor
from longshore.serving.messages import Request
from longshore.serving.metrics import Metrics
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
COLUMNS = ["bill_length_mm", "body_mass_g"]
ROWS = [[39.1, 3750], [50.0, 5700]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    table = read_table(str(PENGUINS))[[*COLUMNS, "species"]]
    trained = train_sklearn(table, target="species", estimator="sklearn.linear_model.LogisticRegression")
    return load_model(directory, save_model(directory, trained.model, trained.card))


@pytest.fixture
def metrics():
    return Metrics(model="penguins", revision="penguins-1")


@pytest.fixture
def capturing(loaded, metrics, tmp_path):
    """A function that makes a predictor whose requests are captured, with what capture is told."""
    made = []

    def make(**options):
        where = tmp_path / "captured" / "requests"
        capture = Capture(where, **{"share": 1.0, "metrics": metrics, "revision": "penguins-1", **options})
        made.append(capture)
        predictor = Predictor(
            loaded,
            name="penguins",
            digest=None,
            version="3",
            revision="penguins-1",
            metrics=metrics,
            capture=capture,
        )
        return predictor, capture, where

    return make


def lines(where):
    return [json.loads(line) for path in sorted(where.glob("*.jsonl")) for line in path.read_text().splitlines()]


def counts(metrics):
    families = text_string_to_metric_families(metrics.render().decode())
    found = [s for family in families for s in family.samples if s.name == "longshore_captured_requests_total"]
    return {s.labels["outcome"]: s.value for s in found}


def test_a_request_is_written_with_its_columns_and_its_predictions(capturing, metrics):
    predictor, _, where = capturing()
    application = Application.of(predictor)
    body = {"instances": ROWS, "parameters": {"probabilities": True}}
    headers = {b"x-request-id": b"abc"}
    application.answer(Request("POST", "/v1/models/penguins:predict", headers, json.dumps(body).encode()))
    application.answer(Request("POST", "/v1/models/penguins:predict", {}, b'{"instances": [{"year": 1}]}'))
    application.close()
    (entry,) = lines(where)
    assert datetime.fromisoformat(entry.pop("time")).tzinfo is not None
    assert [len(shares) for shares in entry.pop("probabilities")] == [3, 3]
    assert entry == {
        "request_id": "abc",
        "model": "penguins",
        "version": "3",
        "revision": "penguins-1",
        "inputs": {"bill_length_mm": [39.1, 50.0], "body_mass_g": [3750, 5700]},
        "predictions": ["Adelie", "Gentoo"],
    }
    assert counts(metrics) == {"written": 1, "dropped": 0}
    # nothing is left that looks unfinished
    assert [path.suffix for path in where.iterdir()] == [".jsonl"]


@pytest.mark.parametrize(
    "ask",
    [
        Ask(rows=[dict(zip(COLUMNS, row, strict=True)) for row in ROWS]),
        Ask(rows=[row[::-1] for row in ROWS], columns=COLUMNS[::-1]),
        Ask(table={"species": ["?", "?"], "bill_length_mm": [39.1, 50.0], "body_mass_g": np.array([3750, 5700])}),
        Ask(tensor=Tensor([39.1, 3750, 50.0, 5700], (2, 2))),
        Ask(tensor=Tensor(np.array(ROWS), (2, 2))),
    ],
)
def test_however_it_is_asked_the_same_is_written(capturing, ask):
    predictor, capture, where = capturing()
    predictor.answer(ask)
    capture.close()
    (entry,) = lines(where)
    assert entry["inputs"] == {"bill_length_mm": [39.1, 50.0], "body_mass_g": [3750, 5700]}


def test_a_share_of_them_is_written(capturing, metrics):
    predictor, capture, where = capturing(share=0.2)
    for _ in range(1000):
        predictor.capture.offer(predictor, Ask(rows=ROWS[:1]), predictor.predict(ROWS[:1]))
    capture.close()
    done = counts(metrics)
    # each of 2,000 is drawn; six deviations to either side
    assert 292 < done["written"] + done["dropped"] < 508
    assert len(lines(where)) == done["written"]


def test_files_are_cut_and_the_oldest_go(capturing):
    predictor, capture, where = capturing(file_bytes=1000, total_bytes=3000)
    for _ in range(100):
        predictor.predict(ROWS)
    capture.close()
    files = sorted(where.iterdir())
    assert all(path.suffix == ".jsonl" for path in files)
    assert all(path.stat().st_size <= 1000 for path in files)
    assert 2000 < sum(path.stat().st_size for path in files) <= 3000
    assert int(files[-1].stem.rpartition("-")[2]) > len(files)


def test_a_place_that_cannot_be_written_and_a_share_that_is_none_are_refused(capturing, tmp_path):
    (tmp_path / "captured").write_text("a file")
    with pytest.raises(ConfigError, match="requests cannot be captured in .*: File exists|Not a directory"):
        capturing()
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(InvalidValue, match="capture-share"):
            capturing(share=share)
