"""The predictor and what it counts."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from longshore.errors import DigestMismatch, InputError, ModelError
from longshore.monitoring import assess, bin_counts, summarise
from longshore.packaging import LoadedModel, frame_to_rows, load_model, rows_to_frame, save_model
from longshore.packaging import bin_counts as frame_counts
from longshore.serving import Predictor
from longshore.serving.drift import BinCounter
from longshore.serving.metrics import Metrics
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
IDENTITY = {"name": "penguins", "version": "3", "revision": "penguins-1a2b3c4d"}


@pytest.fixture(scope="module")
def table():
    return read_table(str(PENGUINS))


@pytest.fixture(scope="module")
def stored(table, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "penguins"
    trained = train_sklearn(table, target="species", estimator="sklearn.linear_model.LogisticRegression")
    return directory, save_model(directory, trained.model, trained.card)


@pytest.fixture
def predictor(stored):
    directory, digest = stored
    return Predictor.load(directory, digest=digest, **IDENTITY)


def samples(metrics: Metrics):
    return [s for family in text_string_to_metric_families(metrics.render().decode()) for s in family.samples]


class Answers:
    """A model that answers what it is told to."""

    def __init__(self, values, shares=None):
        self.values, self.shares = values, shares

    def predict(self, frame):
        if isinstance(self.values, Exception):
            raise self.values
        return self.values

    def predict_proba(self, frame):
        return self.shares


def answering(stored, values, shares=None) -> Predictor:
    directory, digest = stored
    loaded = replace(load_model(directory, digest), model=Answers(values, shares))
    return Predictor(loaded, digest=digest, **IDENTITY)


def test_predictions_are_those_of_the_model_as_plain_values(predictor, stored, table):
    model = load_model(*stored)
    rows = frame_to_rows(model.card.signature, table)
    done = predictor.predict(rows, probabilities=True)
    assert done.values == model.predict(table).tolist()
    assert {type(value) for value in done.values} == {str}
    assert np.allclose(done.probabilities, model.predict_proba(table))
    assert type(done.probabilities[0][0]) is float


def test_probabilities_are_given_only_when_asked_for(predictor):
    assert predictor.predict(predictor.card.example).probabilities is None


def test_rows_can_be_arrays_in_any_order_of_columns(predictor):
    row = dict(predictor.card.example[0])
    names = list(predictor.card.signature.names)
    as_object = predictor.predict([row]).values
    assert predictor.predict([[row[name] for name in names]]).values == as_object
    turned = names[::-1]
    assert predictor.predict([[row[name] for name in turned]], turned).values == as_object


def test_probabilities_of_a_model_without_them_are_refused(table, tmp_path):
    trained = train_sklearn(table, target="body_mass_g", estimator="sklearn.linear_model.Ridge")
    digest = save_model(tmp_path / "m", trained.model, trained.card)
    predictor = Predictor.load(tmp_path / "m", digest=digest, **IDENTITY)
    with pytest.raises(InputError, match="gives no probabilities"):
        predictor.predict(predictor.card.example, probabilities=True)
    (value,) = predictor.predict(predictor.card.example[:1]).values
    assert type(value) is float
    assert 2500 < value < 6500


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.array([True, False]), [True, False]),
        (np.array([np.int64(1), "x"], dtype=object), [1, "x"]),
        (np.array([np.str_("a"), np.bool_(True)], dtype=object), ["a", True]),
        (np.array([1.5, 2], dtype=np.float32), [1.5, 2.0]),
        ([1, 2], [1, 2]),
    ],
)
def test_numpy_scalars_become_plain(stored, values, plain):
    predictor = answering(stored, values)
    done = predictor.predict(predictor.card.example).values
    assert done == plain
    assert [type(value) for value in done] == [type(value) for value in plain]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_answer_that_json_cannot_hold_is_an_error_and_not_counted(stored, bad):
    predictor = answering(stored, np.array([1.0, bad]))
    with pytest.raises(ModelError, match="row 1: the model answers"):
        predictor.predict(predictor.card.example)
    assert sum(map(sum, bin_counts(samples(predictor.metrics)).values())) == 0


def test_probabilities_that_are_not_finite_are_an_error(stored):
    predictor = answering(stored, np.array(["a", "b"]), np.array([[1.0, 0.0], [np.nan, np.nan]]))
    with pytest.raises(ModelError, match="row 1"):
        predictor.predict(predictor.card.example, probabilities=True)


def test_another_digest_is_not_loaded(stored):
    with pytest.raises(DigestMismatch):
        Predictor.load(stored[0], digest="sha256:" + "0" * 64, **IDENTITY)


@pytest.mark.parametrize("values", [ValueError("7 features expected, got 3"), np.array([np.nan, np.nan])])
def test_a_model_that_cannot_predict_its_own_example_is_not_loaded(stored, monkeypatch, values):
    directory, digest = stored
    broken = replace(load_model(directory, digest), model=Answers(values))
    monkeypatch.setattr("longshore.serving.core.load_model", lambda *_: broken)
    with pytest.raises(ModelError, match=r"cannot predict its own example.*(7 features|not finite)"):
        Predictor.load(directory, digest=digest, **IDENTITY)


def test_many_threads_at_once_get_right_answers_and_count_every_row(table, tmp_path):
    trained = train_sklearn(
        table,
        target="species",
        estimator="sklearn.ensemble.RandomForestClassifier",
        parameters={"n_estimators": 10},
    )
    predictor = Predictor(
        LoadedModel(model=trained.model, card=trained.card, directory=tmp_path), digest=None, **IDENTITY
    )
    rows = frame_to_rows(trained.card.signature, table)[::7]
    expected = predictor.predict(rows).values
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: predictor.predict([row]).values[0], rows))
    assert answers == expected
    assert warnings.filters == filters
    counted = bin_counts(samples(predictor.metrics))
    assert {sum(counts) for counts in counted.values()} == {2 * len(rows)}


class Slow:
    """A model of one's own that notes how many rows each call has, and whose first call waits."""

    def __init__(self, model):
        self.model, self.calls, self.began, self.go = model, [], threading.Event(), threading.Event()

    def predict(self, frame):
        self.calls.append(len(frame))
        self.began.set()
        assert self.go.wait(30)
        return self.model.predict(frame)


def slowly(stored, **options):
    directory, digest = stored
    loaded = load_model(directory, digest)
    slow = Slow(loaded.model)
    return slow, Predictor(replace(loaded, model=slow), digest=digest, **IDENTITY, **options)


def asked_at_once(predictor, slow, requests):
    """Ask while a call is under way, all before it ends; what each got, an error included."""

    def ask(request):
        try:
            return predictor.predict(*request).values
        except (InputError, ModelError) as error:
            return str(error)

    with ThreadPoolExecutor(len(requests) + 1) as pool:
        first = pool.submit(ask, (predictor.card.example[:1],))
        assert slow.began.wait(30)
        others = [pool.submit(ask, request) for request in requests]
        while predictor._together.waiting < len(requests):
            slow.began.wait(0.01)
        slow.go.set()
        first.result()
        return [other.result() for other in others]


def test_what_waits_is_predicted_together(stored, table):
    slow, predictor = slowly(stored)
    rows = frame_to_rows(predictor.card.signature, table)[::40]
    expected = [[value] for value in load_model(*stored).model.predict(table.drop(columns="species"))[::40]]
    assert asked_at_once(predictor, slow, [([row],) for row in rows]) == expected
    assert slow.calls == [1, len(rows)]
    batches = {s.labels["le"]: s.value for s in samples(predictor.metrics) if s.name == "longshore_batch_rows_bucket"}
    assert (batches["1.0"], batches["16.0"]) == (1, 2)


@pytest.mark.parametrize(("limit", "calls"), [(1, [1, 2, 2, 2]), (4, [1, 4, 2]), (5, [1, 4, 2])])
def test_a_batch_has_a_bound(stored, limit, calls):
    slow, predictor = slowly(stored, batch_rows=limit)
    two = predictor.card.example[:1] * 2
    assert all(len(values) == 2 for values in asked_at_once(predictor, slow, [(two,)] * 3))
    assert slow.calls == calls


def test_what_is_wrong_with_one_request_is_no_others_business(stored):
    slow, predictor = slowly(stored)
    good = predictor.card.example[:1]
    bad = [*good, {**good[0], "bill_length_mm": "wide"}]
    names = list(predictor.card.signature.names)
    turned = ([[good[0][name] for name in reversed(names)]], names[::-1])
    answers = asked_at_once(predictor, slow, [(good,), (bad,), ([],), turned])
    assert answers[0] == answers[3] == predictor.predict(good).values
    assert answers[1].startswith("row 1, column 'bill_length_mm': expected a number")
    assert answers[2] == "there are no rows: send at least one"


def test_what_is_counted_is_what_drift_is_measured_with(predictor, table):
    predictor.predict(frame_to_rows(predictor.card.signature, table))
    counted = bin_counts(samples(predictor.metrics), revision=IDENTITY["revision"])
    assert counted == {bins.name: list(bins.counts) for bins in predictor.card.baseline}
    assert assess(predictor.card.baseline, counted).verdict == "none"


@pytest.mark.parametrize("kept", [1, 7, 4096])
def test_rows_are_counted_whatever_is_kept_of_them(predictor, table, kept, monkeypatch):
    monkeypatch.setattr("longshore.serving.drift._ROWS", kept)
    card, told = predictor.card, []
    counter = BinCounter(card.baseline, card.signature.names, SimpleNamespace(count_bins=told.append))
    frames = [rows_to_frame(card.signature, [row]) for row in frame_to_rows(card.signature, table)[:20]]
    for frame in frames:
        counter.add(frame)
    counter.flush()
    assert told == [frame_counts(card.baseline, pd.concat(frames, ignore_index=True))]
    counter.retire()
    counter.add(frames[0])
    assert told[-1] == frame_counts(card.baseline, frames[0])


def test_refused_rows_and_the_first_prediction_are_not_counted(predictor):
    with pytest.raises(InputError):
        predictor.predict([{"island": 5}])
    counted = bin_counts(samples(predictor.metrics))
    assert counted == {bins.name: [0] * bins.size for bins in predictor.card.baseline}


def metrics(**changes) -> Metrics:
    made = Metrics(model="m", revision=changes.pop("revision", "m-1"))
    made.of_version(**{"version": "1", "digest": "sha256:ab", "bins": {"x": 2}, **changes})
    return made


def test_the_model_is_named():
    (info,) = [s for s in samples(metrics()) if s.name == "longshore_model_info"]
    assert info.labels == {"model": "m", "version": "1", "revision": "m-1", "digest": "sha256:ab"}
    assert info.value == 1
    (unnamed,) = [s for s in samples(metrics(version=None, digest=None)) if s.name == "longshore_model_info"]
    assert (unnamed.labels["version"], unnamed.labels["digest"]) == ("", "")


def test_durations_fall_into_the_documented_buckets():
    one = metrics()
    one.observe("POST", "/v1/models/{model}:predict", 200, 0.0007)
    one.observe("POST", "/v1/models/{model}:predict", 500, 11)
    buckets = [
        (float(s.labels["le"]), s.value)
        for s in samples(one)
        if s.name.endswith("_bucket") and s.labels.get("status") == "200"
    ]
    assert buckets == [
        (bound, float(bound > 0.0007))
        for bound in (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf"))
    ]


def test_monitoring_reads_what_is_counted():
    one = metrics()
    counts = one.of_version("1", "sha256:ab", {"x": 2})
    counts.observe_prediction("v1", 0.0007)
    counts.observe_prediction("grpc-v2", 0.0007, "client")
    counts.observe_prediction("v2", 11, "server")
    stats = summarise(samples(one), revision="m-1")
    assert (stats.requests, stats.errors) == (3, 1)


def test_strangers_cannot_make_series():
    one = metrics()
    for method in ("GET", "PROPFIND", "MKCOL"):
        one.observe(method, None, 404, 0.1)
    counts = [s.labels for s in samples(one) if s.name == "http_request_duration_seconds_count"]
    labels = {(labels["method"], labels["route"]) for labels in counts}
    assert labels == {("GET", "unmatched"), ("other", "unmatched")}


def test_errors_are_there_before_the_first_one():
    labels = {"model": "m", "revision": "m-1"}
    found = [s for s in samples(metrics()) if s.name == "longshore_prediction_errors_total"]
    assert {s.value for s in found} == {0}
    assert sorted((s.labels["protocol"], s.labels["kind"]) for s in found) == [
        (protocol, kind) for protocol in ("grpc-v2", "v1", "v2") for kind in ("client", "model", "server")
    ]
    assert all(labels.items() <= s.labels.items() for s in found)
    counts = [s for s in samples(metrics()) if s.name == "longshore_prediction_duration_seconds_count"]
    assert {s.labels["protocol"]: s.value for s in counts} == {"v1": 0, "v2": 0, "grpc-v2": 0}


def test_two_revisions_in_one_process_do_not_share_counters():
    one, other = Metrics(model="m", revision="m-1"), Metrics(model="m", revision="m-2")
    counts, _ = (each.of_version("1", None, {"x": 2}) for each in (one, other))
    counts.count_bins({"x": [1, 2]})
    assert bin_counts(samples(one)) == {"x": [1, 2]}
    assert bin_counts(samples(other)) == {"x": [0, 0]}
