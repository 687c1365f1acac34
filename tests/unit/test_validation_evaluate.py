"""Evaluations: slices, notes, and stored models that are evaluated and judged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longshore.errors import ConfigError, DataError, DigestMismatch, ModelError, StorageError
from longshore.packaging import load_model, save_model
from longshore.spec import ModelSource
from longshore.training import read_table, split, train_sklearn
from longshore.validation.evaluate import evaluate, evaluate_predictions
from longshore.validation.predictions import classification, regression
from longshore.validation.stored import evaluate_stored, judge_stored

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
LOGISTIC = "sklearn.linear_model.LogisticRegression"


def sliced(values, *, rows=None):
    """Slices of a regression whose error in row i is i."""
    values = pd.Series(values)
    actual = np.zeros(len(values))
    found = evaluate_predictions(regression(actual, actual + np.arange(len(values))), target="y", slices={"x": values})
    return {one.value: (one.rows, one.metrics["mae"]) for one in found.slices}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(["b", "a", "b"], {"a": (1, 1), "b": (2, 1)}, id="words"),
        pytest.param(["b", None, "b"], {"b": (2, 1), "(missing)": (1, 1)}, id="missing"),
        pytest.param([None, None], {"(missing)": (2, 0.5)}, id="all missing"),
        pytest.param([True, False, True], {"False": (1, 1), "True": (2, 1)}, id="booleans"),
        pytest.param(
            pd.array([True, None, True], dtype="boolean"), {"True": (2, 1), "(missing)": (1, 1)}, id="boolean with NA"
        ),
        pytest.param([10.0, 9.0, float("nan")], {"9": (1, 1), "10": (1, 0), "(missing)": (1, 2)}, id="few numbers"),
        pytest.param([1234567.0, 1234568.0], {"1234567": (1, 0), "1234568": (1, 1)}, id="long numbers"),
        pytest.param([0.25, 0.5], {"0.25": (1, 0), "0.5": (1, 1)}, id="fractions"),
        pytest.param(["10", "9", "x"], {"9": (1, 1), "10": (1, 0), "x": (1, 2)}, id="numbers as words"),
        pytest.param(
            range(12),
            {"0 to 2.75": (3, 1), "2.75 to 5.5": (3, 4), "5.5 to 8.25": (3, 7), "8.25 to 11": (3, 10)},
            id="many numbers",
        ),
        pytest.param(
            pd.array([*range(12), None], dtype="Int64"),
            {
                "0 to 2.75": (3, 1),
                "2.75 to 5.5": (3, 4),
                "5.5 to 8.25": (3, 7),
                "8.25 to 11": (3, 10),
                "(missing)": (1, 12),
            },
            id="many numbers with NA",
        ),
        pytest.param([0.0] * 30 + [*range(1, 12)], {"0 to 1": (31, 15), "1 to 11": (10, 35.5)}, id="mostly one number"),
        pytest.param(
            pd.date_range("2024-01-01", periods=13),
            {
                "2024-01-01 to 2024-01-04": (4, 1.5),
                "2024-01-04 to 2024-01-07": (3, 5),
                "2024-01-07 to 2024-01-10": (3, 8),
                "2024-01-10 to 2024-01-13": (3, 11),
            },
            id="dates",
        ),
        pytest.param(
            pd.date_range("2024-01-01", periods=13, freq="h"),
            {
                "2024-01-01 00:00:00 to 2024-01-01 03:00:00": (4, 1.5),
                "2024-01-01 03:00:00 to 2024-01-01 06:00:00": (3, 5),
                "2024-01-01 06:00:00 to 2024-01-01 09:00:00": (3, 8),
                "2024-01-01 09:00:00 to 2024-01-01 12:00:00": (3, 11),
            },
            id="hours",
        ),
        pytest.param(
            [1_000_000 + i for i in range(13)],
            {
                "1000000 to 1000003": (4, 1.5),
                "1000003 to 1000006": (3, 5),
                "1000006 to 1000009": (3, 8),
                "1000009 to 1000012": (3, 11),
            },
            id="numbers that differ in late digits",
        ),
        pytest.param(
            list("aabbccddeeffgghhiijjkl"),
            {letter: (2, 2 * i + 0.5) for i, letter in enumerate("abcdefghij")} | {"(other)": (2, 20.5)},
            id="more than ten values",
        ),
        pytest.param(pd.Categorical(["u", "v", "u"]), {"u": (2, 1), "v": (1, 1)}, id="categorical"),
    ],
)
def test_slices(values, expected):
    assert sliced(values) == expected
    assert list(sliced(values)) == list(expected)


def test_infinite_numbers_are_grouped_with_what_is_missing():
    found = sliced([*range(12), float("inf"), float("-inf")])
    assert found["(missing)"] == (2, 12.5)
    assert sum(rows for rows, _ in found.values()) == 14


def test_slices_of_a_classifier_have_the_scores_of_their_rows():
    actual, predicted = list("aabbab"), list("aabbba")
    found = evaluate_predictions(
        classification(actual, predicted), target="y", slices={"x": pd.Series(list("uuuuvv")), "z": pd.Series([1] * 6)}
    )
    assert [(one.column, one.value, one.rows, one.metrics["accuracy"]) for one in found.slices] == [
        ("x", "u", 4, 1.0),
        ("x", "v", 2, 0.0),
        ("z", "1", 6, pytest.approx(2 / 3)),
    ]


def test_evaluation_is_json():
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    found = evaluate_predictions(
        classification(["a", "b", "a"], ["a", "b", "b"], probabilities, classes=("a", "b")),
        target="y",
        slices={"x": pd.Series(["u", "v", "u"])},
    )
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["confusion"] == {"labels": ["a", "b"], "matrix": [[1, 1], [0, 1]]}
    assert plain["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert plain["roc"][0]["label"] == "b"
    assert plain["notes"] == ["Only 3 rows: the scores are little more than a guess."]
    assert "predictions" not in plain


def test_a_regression_has_no_class_pictures():
    found = evaluate_predictions(regression([1.0, 2.0], [1.5, 2.0]), target="y")
    assert (found.confusion, found.roc, found.calibration, found.primary) == (None, (), None, "rmse")


@pytest.fixture(scope="module")
def penguins():
    frame = read_table(str(PENGUINS))
    return split(frame, target="species", method="stratified", test_size=0.3, seed=0)


@pytest.fixture(scope="module")
def folder(penguins, tmp_path_factory):
    """Model directories: two of the species by all columns, one by few, one without probabilities, one of the mass."""
    train, _ = penguins
    root = tmp_path_factory.mktemp("models")
    for name, estimator, target, exclude, parameters in [
        ("good", LOGISTIC, "species", [], {}),
        ("poor", "sklearn.tree.DecisionTreeClassifier", "species", [], {"max_depth": 1}),
        ("bare", "sklearn.svm.LinearSVC", "species", [], {}),
        ("mass", "sklearn.linear_model.Ridge", "body_mass_g", [], {}),
    ]:
        made = train_sklearn(train, target=target, estimator=estimator, parameters=parameters, exclude=exclude)
        save_model(root / name, made.model, made.card)
    return root


def source(folder, name, **changes):
    return replace(ModelSource(uri=str(folder / name), format="sklearn", name=name, version="3"), **changes)


def test_a_stored_model_is_scored(penguins, folder):
    _, test = penguins
    found = evaluate_stored(source(folder, "good"), test)
    model = load_model(folder / "good")
    assert found.metrics["accuracy"] == pytest.approx(np.mean(model.predict(test) == test["species"]))
    assert found.metrics["accuracy"] > 0.95
    assert (found.target, found.rows, found.undefined, found.notes) == ("species", len(test), {}, ())
    # the categories, and none of the numbers
    assert {one.column for one in found.slices} == {"island", "sex"}
    assert {one.value for one in found.slices if one.column == "sex"} >= {"female", "male"}


def test_slices_of_a_stored_model_can_be_chosen(penguins, folder):
    _, test = penguins
    assert evaluate_stored(source(folder, "good"), test, slices=[]).slices == ()
    found = evaluate_stored(source(folder, "good"), test, slices=["year", "bill_length_mm"])
    assert [one.value for one in found.slices][:3] == ["2007", "2008", "2009"]
    assert sum(one.rows for one in found.slices if one.column == "bill_length_mm") == len(test)
    with pytest.raises(ConfigError, match="cannot score by 'colour': it is not a column; there are 'species'"):
        evaluate_stored(source(folder, "good"), test, slices=["colour"])


def test_a_stored_regression_is_scored(penguins, folder):
    _, test = penguins
    test = test.dropna(subset="body_mass_g")
    found = evaluate_stored(source(folder, "mass"), test)
    predicted = load_model(folder / "mass").predict(test)
    assert found.metrics["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - test["body_mass_g"]) ** 2)))
    assert found.metrics["r2"] > 0.7


def test_a_model_without_probabilities_is_scored_by_its_classes(penguins, folder):
    found = evaluate_stored(source(folder, "bare"), penguins[1])
    assert set(found.undefined) == {"roc_auc", "log_loss"}
    assert (found.roc, found.calibration) == ((), None)
    assert found.metrics["f1_macro"] > 0.9


def test_rows_without_target_are_left_out_and_told(penguins, folder):
    _, test = penguins
    holes = test.assign(species=test["species"].where(np.arange(len(test)) >= 4))
    found = evaluate_stored(source(folder, "good"), holes)
    assert found.rows == len(test) - 4
    assert found.notes == (f"4 of {len(test)} rows were left out: 'species' is missing in them.",)


def test_a_class_that_was_never_seen_counts_as_wrong_and_is_told(penguins, folder):
    _, test = penguins
    new = test.assign(species=test["species"].where(np.arange(len(test)) >= 4, "Emperor"))
    found = evaluate_stored(source(folder, "good"), new)
    assert found.confusion.labels[-1] == "Emperor"
    assert found.metrics["accuracy"] < 1
    assert found.notes == (
        "The class 'Emperor' (test rows: 4) was never seen in training, so its rows count as wrong.",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="species"), "no column 'species'; there are 'island'"),
        (lambda t: t.assign(species=None), "no row has a value in 'species'"),
        (lambda t: t.iloc[:0], "no row has a value in 'species'"),
        (lambda t: t.assign(species="Emperor"), "none of the values of 'species' is a class.*'Emperor'.*'Adelie'"),
        (lambda t: t.drop(columns="island"), "'island'"),
        (lambda t: t.assign(body_mass_g="heavy"), "'body_mass_g'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(penguins, folder, change, words):
    with pytest.raises(DataError, match=words):
        evaluate_stored(source(folder, "good"), change(penguins[1]))


def test_a_classifier_without_classes_is_refused(penguins, folder):
    model = load_model(folder / "good")
    card = replace(model.card, signature=replace(model.card.signature, task="classification"))
    object.__setattr__(card.signature, "classes", None)
    with pytest.raises(ModelError, match="must list its classes"):
        evaluate(replace(model, card=card), penguins[1], target="species")


def test_a_model_with_another_digest_is_refused(penguins, folder):
    wrong = "sha256:" + "0" * 64
    for candidate, champion in [("good", None), ("poor", "good")]:
        with pytest.raises(DigestMismatch, match="does not have the recorded content"):
            judge_stored(
                source(folder, candidate, digest=None if champion else wrong),
                penguins[1],
                champion=champion and source(folder, champion, digest=wrong),
                thresholds={},
            )
    with pytest.raises(DigestMismatch):
        evaluate_stored(source(folder, "good", digest=wrong), penguins[1])


def test_a_model_that_is_gone_is_told(penguins, folder):
    with pytest.raises((ModelError, StorageError), match="nowhere"):
        evaluate_stored(source(folder, "nowhere"), penguins[1])


@pytest.mark.parametrize(
    ("candidate", "champion", "rule", "approved"),
    [
        ("good", None, "better", True),
        ("good", "poor", "better", True),
        ("good", "good", "not_worse", True),
        ("good", "good", "better", False),
        ("poor", "good", "not_worse", False),
        ("poor", "good", "none", True),
    ],
)
def test_stored_models_are_judged(penguins, folder, candidate, champion, rule, approved):
    verdict = judge_stored(
        source(folder, candidate),
        penguins[1],
        champion=champion and source(folder, champion),
        thresholds={"accuracy": 0.5},
        rule=rule,
    )
    assert verdict.approved is approved
    assert (verdict.comparison is not None) == (champion is not None)


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        ("narrow", "version 3 of narrow, the champion, cannot be scored on these rows: .*'weight'.*champion_rule=none"),
        ("other-target", "the candidate predicts 'species' and the champion 'island'"),
        ("mass", "the candidate is a classification model and the champion a regression model"),
    ],
)
def test_a_champion_that_does_not_fit_is_told(penguins, folder, tmp_path, champion, words):
    train, test = penguins
    test = test.dropna(subset="body_mass_g")
    if champion == "narrow":
        made = train_sklearn(train.rename(columns={"body_mass_g": "weight"}), target="species", estimator=LOGISTIC)
        save_model(tmp_path / champion, made.model, made.card)
    if champion == "other-target":
        made = train_sklearn(train, target="island", estimator=LOGISTIC)
        save_model(tmp_path / champion, made.model, made.card)
    where = folder if champion == "mass" else tmp_path
    with pytest.raises(ConfigError, match=words):
        judge_stored(source(folder, "good"), test, champion=source(where, champion), thresholds={})


def test_the_same_seed_gives_the_same_verdict(penguins, folder):
    one, again, other = (
        judge_stored(
            source(folder, "poor"),
            penguins[1],
            champion=source(folder, "good"),
            thresholds={},
            metric="accuracy",
            seed=s,
        )
        for s in (1, 1, 2)
    )
    assert one == again
    assert one.comparison.gain == other.comparison.gain
