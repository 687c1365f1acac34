"""The model as Seldon Core's Python wrapper has it."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


class SeldonIris:
    """One scikit-learn model: fitted here, since Seldon's numpy is too old to read what a current one has written."""

    def load(self):
        """Fit it."""
        iris = load_iris()
        self.model = LogisticRegression(max_iter=1000).fit(iris.data, iris.target)

    def predict(self, X, names=None, meta=None):  # noqa: N803 - Seldon passes it by name
        """Predict rows."""
        return self.model.predict(X)
