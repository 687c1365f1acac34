"""From a conformed frame to numbers: the part of a model in front of its estimator.

====================  =======================================================================================
kind                  what the estimator sees
====================  =======================================================================================
number, integer       the value, scaled to mean 0 and variance 1, missing values as the median; one more column
                      that says "was missing" where the training data had missing values
boolean               0 or 1, missing values as the more frequent one, with the same additional column
category, text        one column per value (missing is a value of its own), at most 50: rarer values share one,
                      and so do values that were not seen in training
date                  year, month, day of the month, day of the week, hour and days since 1970, scaled
====================  =======================================================================================

The classes here are part of saved models: renaming or moving one breaks the models of users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from longshore.packaging.card import Column

__all__ = ["DateParts", "LabelEncodedClassifier", "make_preprocessor"]

_MAX_ONE_HOT: Final = 50
_BOUNDS: Final = {"a_min": -1e30, "a_max": 1e30}
_FLOATS: Final = {"dtype": np.float64}
_DATE_PARTS: Final = ("year", "month", "day", "day of week", "hour", "days since 1970")


class DateParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns date columns into numbers; NaN where a date is missing."""

    def fit(self, frame: pd.DataFrame, target: Any = None) -> DateParts:  # noqa: ARG002 - scikit-learn's interface
        """Learn nothing but the number of columns."""
        self.n_features_in_ = frame.shape[1]
        return self

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Six numbers for each date: year, month, day, day of the week from Monday = 0, hour, days since 1970."""
        parts = [_date_parts(frame.iloc[:, position]) for position in range(frame.shape[1])]
        return np.hstack(parts)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> np.ndarray:
        """Names such as ``ordered month``."""
        names = input_features if input_features is not None else [f"x{i}" for i in range(self.n_features_in_)]
        return np.array([f"{name} {part}" for name in names for part in _DATE_PARTS], dtype=object)


def _date_parts(dates: pd.Series[Any]) -> np.ndarray:
    # numpy's own arithmetic: a saved model must not depend on what pandas calls these parts
    moments = dates.to_numpy().astype("datetime64[us]")
    days, months, years = (moments.astype(f"datetime64[{unit}]") for unit in "DMY")
    day_numbers = days.astype(np.int64)
    parts = [
        years.astype(np.int64) + 1970,
        months.astype(np.int64) % 12 + 1,
        (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
        (day_numbers + 3) % 7,
        (moments - days).astype(np.int64) // 3_600_000_000,
        moments.astype(np.int64) / 86_400e6,
    ]
    return np.where(np.isnat(moments)[:, None], np.nan, np.column_stack(parts).astype(np.float64))


class LabelEncodedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Lets a classifier that knows only the classes 0 to k - 1, such as XGBoost's, learn and predict any labels.

    Args:
        estimator: The classifier.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, features: Any, target: Any) -> LabelEncodedClassifier:
        """Fit the classifier on the positions of the labels in their sorted list."""
        self.classes_, encoded = np.unique(target, return_inverse=True)
        self.estimator.fit(features, encoded)
        return self

    def predict(self, features: Any) -> np.ndarray:
        """The original labels."""
        labels: np.ndarray = self.classes_[np.asarray(self.estimator.predict(features)).astype(np.intp)]
        return labels

    def predict_proba(self, features: Any) -> np.ndarray:
        """Probabilities in the order of ``classes_``."""
        probabilities: np.ndarray = self.estimator.predict_proba(features)
        return probabilities


def make_preprocessor(columns: Sequence[Column]) -> ColumnTransformer:
    """The preprocessing for a set of input columns, not fitted.

    Args:
        columns: The columns; their kinds decide.
    """
    by_kind: dict[str, list[str]] = {"numbers": [], "booleans": [], "categories": [], "dates": []}
    groups = {"number": "numbers", "integer": "numbers", "boolean": "booleans", "date": "dates"}
    for column in columns:
        by_kind[groups.get(column.kind, "categories")].append(column.name)
    steps: dict[str, Any] = {
        "numbers": Pipeline(
            [
                ("impute", SimpleImputer(strategy="median", add_indicator=True)),
                ("scale", StandardScaler()),
                # estimators that compute with 32-bit floats refuse larger numbers
                ("bound", FunctionTransformer(np.clip, kw_args=_BOUNDS, feature_names_out="one-to-one")),
            ]
        ),
        "booleans": Pipeline(
            [
                # servers that know no signature hand on truth values as they come
                ("number", FunctionTransformer(np.asarray, kw_args=_FLOATS, feature_names_out="one-to-one")),
                ("impute", SimpleImputer(strategy="most_frequent", add_indicator=True)),
            ]
        ),
        "categories": OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=_MAX_ONE_HOT, sparse_output=False
        ),
        "dates": Pipeline(
            [("parts", DateParts()), ("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]
        ),
    }
    return ColumnTransformer([(name, steps[name], names) for name, names in by_kind.items() if names])
