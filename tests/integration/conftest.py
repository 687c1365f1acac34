"""Real servers with small models; whatever a test starts is ended after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.serving import IRIS
from sklearn.datasets import load_iris

from longshore.packaging import save_model
from longshore.training.fit import train_sklearn


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own; servers that live in it are ended."""
    from longshore.local import list_servers, stop

    place = tmp_path / "home"
    monkeypatch.setenv("LONGSHORE_HOME", str(place))
    monkeypatch.delenv("LONGSHORE_RUN", raising=False)
    yield place
    for name in sorted({server.name for server in list_servers()}):
        stop(name)


@pytest.fixture(scope="session")
def iris_model(tmp_path_factory) -> Path:
    """The directory of a model of iris, whose classes are 0, 1 and 2; it is not to be changed."""
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(IRIS, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    trained = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "iris"
    save_model(directory, trained.model, trained.card)
    return directory
