"""Real servers with small models; whatever a test starts is ended after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import seldon as seldon_parts

from longshore.packaging import save_model
from longshore.packaging.model import directory_digest
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"


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
def penguins_table() -> str:
    """Path of the table of penguins."""
    return str(PENGUINS)


@pytest.fixture(scope="session")
def penguins_model(tmp_path_factory) -> Path:
    """The directory of a model of penguins, whose columns are numbers and texts; it is not to be changed."""
    trained = train_sklearn(
        read_table(str(PENGUINS)), target="species", estimator="sklearn.ensemble.HistGradientBoostingClassifier"
    )
    directory = tmp_path_factory.mktemp("models") / "penguins"
    save_model(directory, trained.model, trained.card)
    return directory


@pytest.fixture(scope="session")
def seldon(penguins_model, tmp_path_factory) -> Iterator[seldon_parts.Microservice]:
    """The model of penguins in Seldon's microservice, with two workers for REST and two for gRPC."""
    given = {
        "model_uri": str(penguins_model),
        "version": "3",
        "revision": "penguins-1",
        "digest": directory_digest(penguins_model),
    }
    told = {
        "PREDICTIVE_UNIT_ID": "penguins",
        "PREDICTIVE_UNIT_IMAGE": "longshore-seldon:0.1.0",
        "PREDICTOR_ID": "main",
        "PREDICTOR_LABELS": '{"version": "v7"}',
    }
    log = tmp_path_factory.mktemp("seldon") / "log"
    with seldon_parts.serving(log, "--workers=2", "--grpc-workers=2", parameters=given, variables=told) as one:
        yield one


@pytest.fixture(scope="session")
def seldon_iris(iris_model, tmp_path_factory) -> Iterator[seldon_parts.Microservice]:
    """The model of iris there, which gives probabilities and reads what Seldon does not read before it."""
    given = {"model_uri": str(iris_model), "name": "iris", "revision": "iris-1", "method": "predict_proba"}
    log = tmp_path_factory.mktemp("seldon") / "log"
    with seldon_parts.serving(log, parameters=given, variables={"PAYLOAD_PASSTHROUGH": "true"}) as one:
        yield one
