"""Models that are asked without scikit-learn's checks: the same answers, to the last bit, and the same errors."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from longshore.packaging import LoadedModel, predict_directly, take_arrays
from longshore.packaging.direct import DirectClassifier, DirectModel
from longshore.training.fit import train_sklearn

NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    table = load_iris(as_frame=True)
    frame = table.data.set_axis(list(NAMES), axis="columns")
    frame["species"] = [str(table.target_names[index]) for index in table.target]
    # one without some values
    frame.loc[3, "petal_width"] = np.nan
    return frame


@pytest.fixture(scope="module")
def cards(iris):
    logistic = {"estimator": "sklearn.linear_model.LogisticRegression"}
    numbers = iris.drop(columns="species")
    return {
        "classification": train_sklearn(iris, target="species", **logistic).card,
        "binary": train_sklearn(iris[:100], target="species", **logistic).card,
        "regression": train_sklearn(
            numbers.assign(y=np.arange(150) / 7), target="y", estimator="sklearn.linear_model.Ridge"
        ).card,
    }


def columns(*steps):
    return ColumnTransformer([(f"{index}", step, places) for index, (step, places) in enumerate(steps)])


def clip(**bounds):
    return FunctionTransformer(np.clip, kw_args=bounds)


def trees(kind, **options):
    return kind(n_estimators=5, random_state=0, **options)


KNOWN = {
    "logistic": (LogisticRegression(max_iter=10_000), "classification"),
    "binary": (LogisticRegression(max_iter=10_000), "binary"),
    "scaled": (make_pipeline(StandardScaler(), LogisticRegression()), "classification"),
    "centred": (make_pipeline(StandardScaler(with_std=False), LogisticRegression(max_iter=10_000)), "binary"),
    "divided": (make_pipeline(StandardScaler(with_mean=False), "passthrough", LogisticRegression()), "binary"),
    "columns": (
        make_pipeline(
            columns((StandardScaler(), [2, 0]), (clip(a_min=None, a_max=1.0), [1])),
            LogisticRegression(),
        ),
        "classification",
    ),
    "truth values as numbers": (
        make_pipeline(
            FunctionTransformer(np.asarray, kw_args={"dtype": np.float64}), LogisticRegression(max_iter=10_000)
        ),
        "binary",
    ),
    "imputed": (make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), Ridge()), "regression"),
    "linear": (LinearRegression(), "regression"),
    "tree": (DecisionTreeClassifier(random_state=0), "classification"),
    "tree of numbers": (make_pipeline(StandardScaler(), DecisionTreeRegressor(random_state=0)), "regression"),
    "forest": (trees(RandomForestClassifier), "classification"),
    "forest of numbers": (make_pipeline(StandardScaler(), trees(ExtraTreesRegressor)), "regression"),
    "other estimator": (make_pipeline(StandardScaler(), trees(GradientBoostingClassifier)), "classification"),
}


@pytest.fixture(scope="module")
def models(iris, cards):
    """The model, and what answers directly, by name."""

    def both(model, task):
        rows = iris[:100] if task == "binary" else iris
        features = rows[list(NAMES)].fillna(1)
        model.fit(features, np.arange(150) / 7 if task == "regression" else rows["species"].to_numpy())
        whole = LoadedModel(model=model, card=cards[task], directory=Path())
        assert take_arrays(whole) is not None
        return whole, predict_directly(whole)

    return {name: both(*known) for name, known in KNOWN.items()}


def outcomes(loaded, features):
    """What a model answers, or its errors."""
    found = []
    for ask in (loaded.predict, loaded.predict_proba):
        try:
            # numbers like these are not warned about twice
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = ask(features.copy(), conformed=True)
            found.append(None if answer is None else (answer.dtype, answer.shape, repr(answer.tolist())))
        except ValueError as error:
            found.append(str(error))
    return found


NUMBERS = st.one_of(
    st.floats(-10, 10), st.floats(allow_infinity=False), st.sampled_from([np.nan, 1e39, -1e39, 1.7e308, 0.0, 5.1])
)


@pytest.mark.parametrize("name", KNOWN)
@settings(deadline=None, max_examples=60)
@given(features=arrays(np.float64, st.tuples(st.integers(1, 5), st.just(4)), elements=NUMBERS))
def test_answers_and_errors_are_those_of_the_model(models, name, features):
    whole, direct = models[name]
    assert isinstance(direct.model, DirectModel)
    assert outcomes(direct, features) == outcomes(whole, features)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", KNOWN)
def test_many_rows_get_the_same_in_any_layout(models, name, order):
    whole, direct = models[name]
    features = np.asarray(np.random.default_rng(0).normal(4, 2, (2000, 4)), order=order)
    assert outcomes(direct, features) == outcomes(whole, features)
    assert isinstance(direct.model, DirectClassifier) == hasattr(whole.model, "predict_proba")


@pytest.mark.parametrize("estimator", ["sklearn.linear_model.LogisticRegression", None])
def test_what_longshore_trains_is_asked_directly(iris, estimator):
    trained = train_sklearn(
        iris, target="species", estimator=estimator, parameters=None if estimator else {"n_estimators": 5}
    )
    whole = LoadedModel(model=trained.model, card=trained.card, directory=Path())
    assert take_arrays(whole) is not None
    direct = predict_directly(whole)
    assert isinstance(direct.model, DirectClassifier)
    # among them one with a missing value
    features = iris[list(NAMES)].to_numpy(dtype=np.float64)
    assert outcomes(direct, features) == outcomes(whole, features)
    assert outcomes(direct, features[:1]) == outcomes(whole, features[:1])


class Subclass(LogisticRegression):
    def predict(self, X):  # noqa: N803 - scikit-learn's name
        return super().predict(X)[::-1]


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(MinMaxScaler(), LogisticRegression()),
        make_pipeline(FunctionTransformer(np.square), LogisticRegression(max_iter=10_000)),
        make_pipeline(columns((StandardScaler(), slice(0, 2))), LogisticRegression()),
        make_pipeline(SimpleImputer(missing_values=5.1), LogisticRegression(max_iter=10_000)),
        Subclass(max_iter=10_000),
        trees(RandomForestClassifier, n_jobs=2),
        trees(GradientBoostingClassifier),
    ],
    ids=["step", "function", "slice", "missing value", "subclass", "threads", "estimator"],
)
def test_what_is_not_known_is_left_to_the_model(iris, cards, model):
    model.fit(iris[list(NAMES)].fillna(1), iris["species"].to_numpy())
    loaded = LoadedModel(model=model, card=cards["classification"], directory=Path())
    assert take_arrays(loaded) is not None
    assert predict_directly(loaded) is loaded


class Fickle(LogisticRegression):
    """It has another answer each time."""


Fickle.__module__, Fickle.__name__ = LogisticRegression.__module__, "LogisticRegression"
Fickle.predict = lambda self, features: np.flip(self.classes_)[np.zeros(len(features), dtype=int)]


def test_what_answers_otherwise_is_left_to_the_model(iris, cards):
    model = Fickle(max_iter=10_000).fit(iris[list(NAMES)].fillna(1), iris["species"].to_numpy())
    loaded = LoadedModel(model=model, card=cards["classification"], directory=Path())
    assert take_arrays(loaded) is not None
    assert predict_directly(loaded) is loaded
