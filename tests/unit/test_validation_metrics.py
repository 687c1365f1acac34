"""Scores and curves against scikit-learn's, and what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference

from longshore.errors import ConfigError, DataError, ModelError
from longshore.validation.curves import calibration_curve, roc_curves
from longshore.validation.metrics import METRICS, confusion_matrix, metric_info, score
from longshore.validation.predictions import align, classification, regression


def drawn(classes, rows=400, *, seed=0, skill=1.5):
    """True labels, probabilities with some skill and many ties, and the likeliest label of each row."""
    rng = np.random.default_rng(seed)
    codes = rng.choice(len(classes), rows, p=np.arange(1, len(classes) + 1) / sum(range(1, len(classes) + 1)))
    weights = np.exp(np.round(rng.normal(size=(rows, len(classes))) + skill * np.eye(len(classes))[codes], 1))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    labels = np.array(classes, dtype=object)
    return labels[codes], labels[probabilities.argmax(axis=1)], probabilities


LABELS = [("no", "yes"), ("a", "b", "c"), (0, 1), (3, 5, 8, 13), (False, True)]


@pytest.mark.parametrize("classes", LABELS, ids=str)
def test_class_scores_are_those_of_scikit_learn(classes):
    actual, predicted, probabilities = drawn(classes)
    found, undefined = score(classification(actual, predicted, probabilities, classes=classes))
    # scikit-learn takes no objects for booleans
    actual, predicted = np.array(actual.tolist()), np.array(predicted.tolist())
    averaged = {"average": "macro", "zero_division": 0}
    binary = len(classes) == 2
    assert undefined == {}
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(actual, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(actual, predicted),
            "f1_macro": reference.f1_score(actual, predicted, **averaged),
            "precision_macro": reference.precision_score(actual, predicted, **averaged),
            "recall_macro": reference.recall_score(actual, predicted, **averaged),
            "log_loss": reference.log_loss(actual, probabilities, labels=list(classes)),
            "roc_auc": reference.roc_auc_score(
                actual, probabilities[:, 1] if binary else probabilities, multi_class="ovr", average="macro"
            ),
        },
        rel=1e-12,
    )


@pytest.mark.parametrize(
    ("actual", "predicted"),
    [
        pytest.param(["a", "a", "b"], ["a", "a", "a"], id="a class that is never predicted"),
        pytest.param(["a", "a", "b"], ["a", "c", "b"], id="a class that never occurs"),
        pytest.param(["a", "a"], ["a", "a"], id="one class"),
        pytest.param(["a", "b"], ["b", "a"], id="all wrong"),
        pytest.param(["a"], ["b"], id="one row"),
    ],
)
def test_class_scores_at_the_edges(actual, predicted):
    found, undefined = score(classification(actual, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of the very edges that are tested
        assert found == pytest.approx(
            {
                "accuracy": reference.accuracy_score(actual, predicted),
                "balanced_accuracy": reference.balanced_accuracy_score(actual, predicted),
                "f1_macro": reference.f1_score(actual, predicted, average="macro", zero_division=0),
                "precision_macro": reference.precision_score(actual, predicted, average="macro", zero_division=0),
                "recall_macro": reference.recall_score(actual, predicted, average="macro", zero_division=0),
            }
        )
    assert undefined == dict.fromkeys(("roc_auc", "log_loss"), "the model gives no probabilities")


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_regression_scores_are_those_of_scikit_learn(scale):
    rng = np.random.default_rng(1)
    actual = scale * rng.normal(5, 1, 300)
    predicted = actual + scale * rng.normal(0.1, 0.5, 300)
    found, undefined = score(regression(actual, predicted))
    assert undefined == {}
    assert found == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(actual, predicted),
            "mae": reference.mean_absolute_error(actual, predicted),
            "mape": reference.mean_absolute_percentage_error(actual, predicted),
            "r2": reference.r2_score(actual, predicted),
        },
        rel=1e-9,
    )


@pytest.mark.parametrize(
    ("actual", "predicted", "undefined"),
    [
        ([1.0, 2.0], [1.0, float("nan")], {"rmse", "mae", "mape", "r2"}),
        ([1.0, 2.0], [1.0, float("inf")], {"rmse", "mae", "mape", "r2"}),
        ([0.0, 2.0], [1.0, 2.0], {"mape"}),
        ([2.0, 2.0], [1.0, 2.0], {"r2"}),
        # the variance of equal numbers is not always 0 in floating point
        ([0.1] * 10, [0.2] * 10, {"r2"}),
        ([1e200, 2e200], [-1e200, 2e200], {"rmse", "r2"}),
        ([1e308, -1e308], [-1e308, 1e308], {"rmse", "mae", "mape", "r2"}),
        ([1e-310, 1.0], [1e5, 1.0], {"mape"}),
    ],
)
def test_undefined_regression_scores_have_a_reason(actual, predicted, undefined):
    metrics, reasons = score(regression(actual, predicted))
    assert set(reasons) == undefined
    assert set(metrics) == {"rmse", "mae", "mape", "r2"} - undefined
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(reasons.values())


def test_area_of_one_class_is_undefined():
    metrics, reasons = score(classification(["a", "a"], ["a", "a"], [[0.9, 0.1], [0.8, 0.2]], classes=("a", "b")))
    assert reasons == {"roc_auc": "all rows are of one class"}
    assert metrics["log_loss"] == pytest.approx(-np.log([0.9, 0.8]).mean())


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ([0.5, 0.5], None),
        ([1.0 + 1e-9, -1e-9], None),
        ([np.float32(1 / 3), np.float32(2 / 3)], None),
        ([0.5, 0.6], "do not add up to 1 in 1 of 2 rows"),
        ([1.5, -0.5], "do not add up to 1 in 1 of 2 rows"),
        ([float("nan"), 1.0], "are not finite in 1 of 2 rows"),
    ],
)
def test_faulty_probabilities_are_not_scored(row, fault):
    predictions = classification(["a", "b"], ["a", "b"], [[0.9, 0.1], row], classes=("a", "b"))
    metrics, reasons = score(predictions)
    assert set(reasons) == ({"roc_auc", "log_loss"} if fault else set())
    assert (calibration_curve(predictions) is None) == bool(fault)
    assert (roc_curves(predictions) == ()) == bool(fault)
    for reason in reasons.values():
        assert fault in reason
        assert "roc_auc" not in metrics


def test_probability_zero_of_the_true_class_is_bounded_as_in_scikit_learn():
    rows = [[1.0, 0.0], [0.5, 0.5]]
    metrics, _ = score(classification(["b", "a"], ["a", "a"], rows, classes=("a", "b")))
    assert metrics["log_loss"] == pytest.approx(reference.log_loss(["b", "a"], rows, labels=["a", "b"]))


def test_labels_that_the_model_does_not_know_follow_its_classes():
    predictions = classification(
        ["z", "b", "a"], ["b", "b", "a"], [[0.2, 0.8], [0.1, 0.9], [0.7, 0.3]], classes=("b", "a")[::-1]
    )
    assert predictions.labels == ("a", "b", "z")
    assert predictions.actual.tolist() == [2, 1, 0]
    assert predictions.probabilities[:, 2].tolist() == [0, 0, 0]
    assert score(predictions)[0]["accuracy"] == pytest.approx(2 / 3)


def test_confusion_is_that_of_scikit_learn():
    actual, predicted, _ = drawn(("a", "b", "c"))
    predictions = classification(actual, predicted)
    assert predictions.labels == ("a", "b", "c")
    assert confusion_matrix(predictions).tolist() == reference.confusion_matrix(actual, predicted).tolist()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([], []), DataError, "no rows"),
        ((["a", None], ["a", "a"]), DataError, "missing in 1 of 2 rows"),
        ((["a", float("nan")], ["a", "a"]), DataError, "missing in 1 of 2 rows"),
        ((pd.Series(["a", None]), ["a", "a"]), DataError, "missing in 1 of 2 rows"),
        ((["a", "b"], ["a", None]), ModelError, "no class in 1 of 2 rows"),
        ((["a", "b"], ["a"]), ModelError, "1 predictions for 2 rows"),
        ((["a", "b"], [["a", "b"], ["a", "b"]]), ModelError, r"shape \(2, 2\)"),
        ((["a", "b"], ["a", "b"], [[0.5, 0.5]]), ModelError, "2 rows and 2 classes"),
        ((["a", "b"], ["a", "b"], [["x", 1], [0, 1]]), ModelError, "not all numbers"),
    ],
)
def test_classification_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        classification(*arguments, classes=("a", "b"))


@pytest.mark.parametrize(
    ("actual", "predicted", "error", "words"),
    [
        ([], [], DataError, "no rows"),
        ([1.0, None], [1, 2], DataError, "missing or infinite in 1 of 2"),
        ([1.0, float("inf")], [1, 2], DataError, "missing or infinite in 1 of 2"),
        (["one", "two"], [1, 2], DataError, "true values are not all numbers"),
        ([1, 2], ["one", "two"], ModelError, "predictions are not all numbers"),
        ([1, 2], [1, 2, 3], ModelError, "3 predictions for 2 rows"),
    ],
)
def test_regression_refuses(actual, predicted, error, words):
    with pytest.raises(error, match=words):
        regression(actual, predicted)


def test_one_column_of_predictions_counts_as_a_vector():
    assert regression([1, 2], np.array([[1.0], [3.0]])).residuals.tolist() == [0.0, -1.0]


@pytest.mark.parametrize(
    ("name", "task", "words"),
    [
        ("acuracy", "classification", "not a metric.*accuracy"),
        ("rmse", "classification", "does not score a classification model.*f1_macro"),
        ("accuracy", "regression", "does not score a regression model.*rmse"),
    ],
)
def test_unknown_metric_is_refused_with_the_known_ones(name, task, words):
    with pytest.raises(ConfigError, match=words):
        metric_info(name, task)


def test_errors_are_lower_is_better():
    assert {name for name, info in METRICS.items() if not info.higher_is_better} == {"log_loss", "rmse", "mae", "mape"}


def test_alignment_keeps_labels_and_scores():
    one = classification(["a", "c"], ["a", "a"], [[0.6, 0.4], [0.7, 0.3]], classes=("a", "c"))
    other = classification(["a", "c"], ["b", "c"], [[0.6, 0.2, 0.2], [0.1, 0.1, 0.8]], classes=("b", "a", "c"))
    first, second = align(one, other)
    assert first.labels == second.labels == ("a", "c", "b")
    assert first.actual.tolist() == second.actual.tolist() == [0, 1]
    assert second.predicted.tolist() == [2, 1]
    assert second.probabilities.tolist() == [[0.2, 0.2, 0.6], [0.1, 0.8, 0.1]]
    for before, after in ((one, first), (other, second)):
        assert score(after)[0] == pytest.approx(score(before)[0])


def test_roc_of_two_classes_is_that_of_scikit_learn():
    actual, predicted, probabilities = drawn(("no", "yes"), rows=60)
    (curve,) = roc_curves(classification(actual, predicted, probabilities, classes=("no", "yes")))
    fpr, tpr, thresholds = reference.roc_curve(actual == "yes", probabilities[:, 1], drop_intermediate=False)
    assert curve.label == "yes"
    assert curve.fpr == pytest.approx(tuple(fpr))
    assert curve.tpr == pytest.approx(tuple(tpr))
    assert curve.thresholds[1:] == pytest.approx(tuple(thresholds[1:]))
    assert probabilities[:, 1].max() < curve.thresholds[0] < float("inf")
    assert curve.auc == pytest.approx(reference.auc(fpr, tpr))


def test_long_roc_curves_are_thinned_without_changing_their_area_much():
    actual, predicted, probabilities = drawn(("a", "b", "c"), rows=5000)
    curves = roc_curves(classification(actual, predicted, probabilities, classes=("a", "b", "c")))
    assert [curve.label for curve in curves] == [None, "a", "b", "c"]
    for curve in curves:
        assert len(curve.fpr) == len(curve.tpr) == len(curve.thresholds) <= 100
        assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
        assert list(curve.fpr) == sorted(curve.fpr)
        assert list(curve.thresholds) == sorted(curve.thresholds, reverse=True)
        assert reference.auc(curve.fpr, curve.tpr) == pytest.approx(curve.auc, abs=0.002)
    hits = np.eye(3)[np.searchsorted(["a", "b", "c"], actual.astype(str))]
    assert curves[0].auc == pytest.approx(reference.roc_auc_score(hits, probabilities, average="micro"))


def test_of_many_classes_the_most_frequent_have_curves():
    classes = tuple("abcdefghij")
    actual, predicted, probabilities = drawn(classes, rows=900)
    curves = roc_curves(classification(actual, predicted, probabilities, classes=classes))
    assert [curve.label for curve in curves] == [None, "e", "f", "g", "h", "i", "j"]


def test_no_curves_of_one_class():
    assert roc_curves(classification(["a", "a"], ["a", "a"], [[0.9, 0.1]] * 2, classes=("a", "b"))) == ()


def test_calibration_of_two_classes():
    chance = np.repeat([0.05, 0.55, 1.0], [20, 10, 5])
    happened = np.concatenate([np.arange(20) < 1, np.arange(10) < 8, np.arange(5) < 5])
    predictions = classification(
        np.where(happened, "yes", "no"),
        np.where(chance > 0.5, "yes", "no"),
        np.column_stack([1 - chance, chance]),
        classes=("no", "yes"),
    )
    found = calibration_curve(predictions)
    assert found.label == "yes"
    assert found.counts == (20, 10, 5)
    assert found.predicted == pytest.approx((0.05, 0.55, 1.0))
    assert found.observed == pytest.approx((0.05, 0.8, 1.0))
    assert found.error == pytest.approx(10 * 0.25 / 35)


def test_calibration_of_more_classes_is_that_of_the_likeliest():
    found = calibration_curve(
        classification(
            ["a", "b", "a"],
            ["a", "b", "c"],
            [[0.8, 0.1, 0.1], [0.1, 0.81, 0.09], [0.2, 0.2, 0.6]],
            classes=("a", "b", "c"),
        )
    )
    assert found.label is None
    assert found.counts == (1, 2)
    assert found.predicted == pytest.approx((0.6, 0.805))
    assert found.observed == (0.0, 1.0)
