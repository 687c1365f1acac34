"""Training."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from longshore.errors import ConfigError, DataError, LongshoreError, TrainingError
from longshore.packaging import ModelCard, bin_counts, conform, load_model, rows_to_frame, save_model
from longshore.training import split, table_digest, train_sklearn
from longshore.training.preprocess import DateParts


def load_penguins():
    return pd.read_csv(Path(__file__).parents[2] / "examples" / "data" / "penguins.csv")


LOGISTIC = "sklearn.linear_model.LogisticRegression"
RIDGE = "sklearn.linear_model.Ridge"


@pytest.fixture(scope="module")
def penguins():
    return load_penguins()


def shop(rows=300):
    rng = np.random.default_rng(0)
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 500 * 24, rows), unit="h")
    frame = pd.DataFrame(
        {
            "Datum": day,
            "Größe (m²)": rng.normal(80, 20, rows),
            "Balkon?": rng.random(rows) < 0.5,
            "Ort": rng.choice(["Köln", "Zürich", "Łódź"], rows),
            "Bestell-Nr.": [f"B-{i:05}" for i in range(rows)],
        }
    )
    frame["Preis €"] = frame["Größe (m²)"] * 12 + frame["Balkon?"] * 300 + day.month * 50
    frame.loc[::10, "Größe (m²)"] = np.nan
    frame.loc[::11, "Datum"] = None
    frame["Balkon?"] = frame["Balkon?"].astype(object).where(frame.index % 13 > 0, None)
    return frame


def test_penguins_are_learned_with_the_default(penguins):
    train, test = split(penguins, target="species")
    trained = train_sklearn(train, target="species")
    card = trained.card
    assert card.estimator == "sklearn.ensemble.RandomForestClassifier"
    assert card.signature.classes == ("Adelie", "Chinstrap", "Gentoo") == tuple(trained.model.classes_)
    assert (card.task, card.rows, card.format) == ("classification", len(train), "sklearn")
    assert card.data_digest == table_digest(train)
    assert (trained.model.predict(conform(card.signature, test)) == test["species"]).mean() > 0.95


def test_diabetes_is_learned_with_the_default():
    train, test = split(load_diabetes(as_frame=True).frame, target="target")
    trained = train_sklearn(train, target="target")
    assert trained.card.estimator == "sklearn.ensemble.RandomForestRegressor"
    assert trained.card.signature.classes is None
    assert trained.model.score(conform(trained.card.signature, test), test["target"]) > 0.2


def test_dates_booleans_missing_values_and_any_header_are_learned_from():
    trained = train_sklearn(shop(), target="Preis €", estimator=RIDGE)
    signature = trained.card.signature
    assert [(c.name, c.kind, c.nullable) for c in signature.inputs] == [
        ("Datum", "date", True),
        ("Größe (m²)", "number", True),
        ("Balkon?", "boolean", True),
        ("Ort", "category", False),
    ]
    assert signature.ignored == ("Bestell-Nr.",)
    assert list(trained.report["left_out"]) == ["Bestell-Nr."]
    complete = shop().dropna()
    assert trained.model.score(conform(signature, complete), complete["Preis €"]) > 0.9


def test_unseen_and_missing_values_are_predicted():
    trained = train_sklearn(shop(), target="Preis €", estimator=RIDGE)
    rows = [
        {"Datum": None, "Größe (m²)": None, "Balkon?": None, "Ort": None},
        {"Datum": "1871-01-01", "Größe (m²)": -1e12, "Balkon?": True, "Ort": "Atlantis"},
        *trained.card.example,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictions = trained.model.predict(rows_to_frame(trained.card.signature, rows))
    assert np.isfinite(predictions).all()


def test_the_largest_numbers_are_predicted(penguins):
    trained = train_sklearn(penguins, target="species", parameters={"n_estimators": 3})
    row = {**trained.card.example[0], "body_mass_g": 1e308}
    assert trained.model.predict(rows_to_frame(trained.card.signature, [row])).shape == (1,)


def test_the_example_and_the_baseline_fit_the_signature(penguins):
    card = train_sklearn(penguins, target="species", estimator=LOGISTIC).card
    frame = rows_to_frame(card.signature, card.example)
    assert len(frame) == 2
    assert not frame.isna().any(axis=None)
    counts = bin_counts(card.baseline, conform(card.signature, penguins))
    assert counts == {bins.name: list(bins.counts) for bins in card.baseline}
    assert ModelCard.from_json(card.to_json()) == card


XGBOOST = ("xgboost.XGBClassifier", {"n_estimators": 5, "eta": 0.5})
LIGHTGBM = ("lightgbm.LGBMClassifier", {"n_estimators": 5, "feature_fraction": 0.9})


@pytest.mark.parametrize(
    ("estimator", "parameters", "labels"),
    [
        (LOGISTIC, {"C": 0.5}, "text"),
        (LOGISTIC, {"C": 0.5}, "boolean"),
        ("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 10}, "integer"),
        ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5}, "text"),
        ("sklearn.svm.LinearSVC", {}, "text"),
        (*XGBOOST, "text"),
        (*XGBOOST, "boolean"),
        (*XGBOOST, "integer"),
        (*LIGHTGBM, "text"),
        (*LIGHTGBM, "integer"),
    ],
)
def test_labels_come_back_as_they_were(penguins, estimator, parameters, labels, tmp_path, capfd):
    target = {
        "text": penguins["species"],
        "boolean": penguins["species"] == "Gentoo",
        "integer": penguins["species"].map({"Adelie": 7, "Chinstrap": -1, "Gentoo": 30}),
    }[labels]
    frame = penguins.assign(species=target)
    trained = train_sklearn(frame, target="species", estimator=estimator, parameters=parameters)
    digest = save_model(tmp_path / "m", trained.model, trained.card)
    loaded = load_model(tmp_path / "m", digest)
    predictions = loaded.predict(frame)
    assert (predictions == target).mean() > 0.95
    assert set(predictions.tolist()) == set(loaded.card.signature.classes) == set(target.tolist())
    probabilities = loaded.predict_proba(frame)
    if estimator.endswith("LinearSVC"):
        assert probabilities is None
    else:
        classes = np.array(loaded.card.signature.classes)
        assert (classes[probabilities.argmax(axis=1)] == predictions).all()
    assert loaded.card.parameters == parameters
    root = estimator.partition(".")[0]
    assert loaded.card.libraries["scikit-learn" if root == "sklearn" else root] != "unknown"
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("estimator", ["xgboost.XGBRegressor", "lightgbm.LGBMRegressor", RIDGE])
def test_regressors_learn(estimator):
    frame = load_diabetes(as_frame=True).frame
    trained = train_sklearn(frame, target="target", estimator=estimator)
    assert trained.model.score(conform(trained.card.signature, frame), frame["target"]) > 0.4


def test_rows_without_a_target_are_left_out_and_counted(penguins, caplog):
    trained = train_sklearn(penguins, target="sex", estimator=LOGISTIC, exclude=["year"])
    assert trained.report["rows_without_target"] == 11
    assert trained.card.rows == trained.report["rows"] == 333
    assert trained.card.signature.ignored == ("year",)
    assert "11 of 344 rows have no value in the target 'sex'" in caplog.text


def test_whole_numbers_with_gaps_stay_whole_labels():
    frame = load_iris(as_frame=True).frame.assign(target=lambda f: f["target"].where(f.index > 3))
    assert train_sklearn(frame, target="target", estimator=LOGISTIC).card.signature.classes == (0, 1, 2)


def test_the_estimator_settles_a_task_that_could_be_either():
    frame = load_iris(as_frame=True).frame
    assert train_sklearn(frame, target="target", estimator=RIDGE).card.task == "regression"
    assert train_sklearn(frame, target="target", task="regression").card.estimator.endswith("Regressor")


def test_the_seed_reaches_every_part(penguins):
    trained = train_sklearn(
        penguins,
        target="species",
        estimator="sklearn.linear_model.SGDClassifier",
        parameters={"loss": "log_loss"},
        seed=5,
    )
    assert trained.model[-1].random_state == 5
    chosen = train_sklearn(
        penguins, target="species", estimator=LOGISTIC, parameters={"random_state": 9, "tol": np.float64(1e-3)}
    )
    assert chosen.model[-1].random_state == 9
    assert chosen.card.parameters == {"random_state": 9, "tol": 1e-3}


def test_the_table_is_not_changed(penguins):
    before = penguins.copy()
    train_sklearn(penguins, target="species", estimator=LOGISTIC)
    pd.testing.assert_frame_equal(penguins, before)


def test_warnings_of_a_fit_are_reported_and_not_raised(caplog):
    frame = load_breast_cancer(as_frame=True).frame
    trained = train_sklearn(frame, target="target", estimator=LOGISTIC, parameters={"max_iter": 1})
    assert any("failed to converge" in text for text in trained.report["warnings"])
    assert "failed to converge" in caplog.text


def test_dates_become_numbers():
    dates = pd.Series(["1969-12-31T23:00:00", "2024-02-29T13:59:59", None]).astype("datetime64[us]")
    parts = DateParts().fit_transform(dates.to_frame("d"))
    assert parts[0].tolist() == [1969, 12, 31, 2, 23, -1 / 24]
    assert parts[1, :5].tolist() == [2024, 2, 29, 3, 13]
    assert np.isnan(parts[2]).all()
    assert list(DateParts().fit(dates.to_frame()).get_feature_names_out(["d"]))[3] == "d day of week"


def test_many_rare_categories_share_a_column():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"city": [f"c{i}" for i in rng.integers(0, 300, 3000)], "y": rng.random(3000)})
    trained = train_sklearn(frame, target="y", estimator=RIDGE)
    assert trained.card.signature.inputs[0].kind == "text"
    assert trained.model[-1].n_features_in_ == 50
    assert len(trained.card.baseline[0].counts) == 22


def test_what_json_cannot_hold_is_told_by_its_type(penguins):
    trained = train_sklearn(
        penguins,
        target="species",
        estimator="sklearn.ensemble.BaggingClassifier",
        parameters={"estimator": BaseEstimatorDouble(), "n_estimators": 2},
    )
    assert trained.card.parameters["estimator"].endswith(".BaseEstimatorDouble")
    assert "0x" not in trained.card.to_json()


class BaseEstimatorDouble(BaseEstimator):
    def fit(self, features, target):
        self.classes_ = np.unique(target)
        return self

    def predict(self, features):
        return np.full(len(features), self.classes_[0])


def same(frame):
    return frame


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        (lambda f: f.head(0), {}, DataError, "the table has no rows"),
        (same, {"target": "Species"}, DataError, "target column 'Species' is not in the table, which has: species"),
        (lambda f: f.assign(species=None), {}, DataError, "has no value in any of the 344 rows"),
        (lambda f: f[f["species"] == "Gentoo"], {}, DataError, "has one class only \\('Gentoo'\\)"),
        (lambda f: f[["species"]], {}, DataError, "no column to learn from .*there is no other column"),
        (lambda f: f[["species"]].assign(a=None), {}, DataError, "a: all its values are missing"),
        (same, {"exclude": ["yaer"]}, DataError, "excluded column 'yaer' is not in the table"),
        (lambda f: f.assign(year=np.inf), {}, DataError, "column 'year' should hold a number"),
        (lambda f: f.assign(year=np.inf), {"target": "year"}, DataError, "infinite numbers"),
        (lambda f: f.assign(day="2024-05-17"), {"target": "day"}, DataError, "holds dates"),
        (lambda f: pd.concat([f, f], axis=1), {}, DataError, "more than once"),
        (same, {"task": "ranking"}, ConfigError, "task = 'ranking' is not known"),
        (same, {"seed": -1}, ConfigError, "seed = -1 is not valid"),
        (same, {"seed": True}, ConfigError, "seed = True is not valid"),
        (same, {"estimator": "RandomForest"}, TrainingError, "is not an import path"),
        (same, {"estimator": "sklearn..x"}, TrainingError, "is not an import path"),
        (same, {"estimator": "nosuchlib.Thing"}, TrainingError, "install the package that brings 'nosuchlib'"),
        (same, {"estimator": "sklearn.linear.Ridge"}, TrainingError, "check the module's name"),
        (
            same,
            {"estimator": "sklearn.ensemble.RandomForestClasifier"},
            TrainingError,
            "did you mean RandomForestClassifier",
        ),
        (same, {"estimator": "sklearn.linear_model.Qqqqq"}, TrainingError, "has no 'Qqqqq'"),
        (same, {"estimator": "os.path"}, TrainingError, "this is a module"),
        (same, {"estimator": "os.getcwd"}, TrainingError, "this is a builtin_function_or_method"),
        (same, {"estimator": "sklearn.preprocessing.StandardScaler"}, TrainingError, "a class without them"),
        (same, {"parameters": {"n_estimator": 5}}, TrainingError, "did you mean 'n_estimators'"),
        (same, {"parameters": {"zzz": 5}}, TrainingError, "does not take the parameter 'zzz': It takes bootstrap, "),
        (same, {"parameters": {"n_estimators": -1}}, TrainingError, "could not be fitted .* 'n_estimators' parameter"),
        (same, {"estimator": "sklearn.ensemble.VotingClassifier"}, TrainingError, "cannot be built"),
        (same, {"estimator": RIDGE}, TrainingError, "Ridge is made for regression, but .* 'Adelie': use a classifier"),
        (same, {"task": "regression"}, TrainingError, "task is 'regression', but .*use a classifier"),
        (same, {"estimator": LOGISTIC, "target": "body_mass_g", "task": "regression"}, TrainingError, "change one of"),
        (
            same,
            {"estimator": LOGISTIC, "target": "bill_length_mm"},
            TrainingError,
            "different numbers .*use a regressor",
        ),
        (
            same,
            {"estimator": "xgboost.XGBClassifier", "parameters": {"max_dept": 3}},
            TrainingError,
            "mean 'max_depth'",
        ),
        (same, {"estimator": "xgboost.XGBClassifier", "parameters": {"zzz": 3}}, TrainingError, "zzz.* are not used"),
        (
            same,
            {"estimator": "lightgbm.LGBMClassifier", "parameters": {"num_leave": 3}},
            TrainingError,
            "mean 'num_leaves'",
        ),
    ],
)
def test_what_cannot_be_trained_is_told(penguins, change, options, error, says):
    with pytest.raises(error, match=says) as caught:
        train_sklearn(change(penguins), **{"target": "species", **options})
    assert isinstance(caught.value, LongshoreError)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_a_missing_library_names_the_extra(penguins, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(TrainingError, match=rf"pip install 'longshore\[{library}\]'"):
        train_sklearn(penguins, target="species", estimator=f"{library}.Something")


def test_a_library_that_breaks_while_it_is_imported_is_told(penguins, tmp_path, monkeypatch):
    (tmp_path / "brokenlib.py").write_text("raise RuntimeError('libomp.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match="importing brokenlib failed with RuntimeError: libomp.so is missing"):
        train_sklearn(penguins, target="species", estimator="brokenlib.Thing")


def test_truth_values_may_come_to_a_model_as_they_are():
    """As to a server that knows no signature: MLServer makes a table of what it is sent."""
    table = pd.DataFrame({"a": np.arange(40.0), "flag": [True, False] * 20, "y": np.arange(40.0)})
    model = train_sklearn(table, target="y", estimator="sklearn.linear_model.LinearRegression").model
    expected = model.predict(pd.DataFrame({"a": [1.0, 2.0], "flag": [1.0, np.nan]}))
    for flags in ([True, None], [1, None]):
        raw = pd.DataFrame({"a": [1.0, 2.0], "flag": pd.Series(flags, dtype=object)})
        assert model.predict(raw) == pytest.approx(expected)
    whole = pd.DataFrame({"a": [1.0], "flag": [True]})
    assert model.predict(whole) == pytest.approx(expected[:1])
