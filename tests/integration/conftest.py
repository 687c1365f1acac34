"""Real servers with small models; whatever a test starts is ended after it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from longshore.packaging import save_model
from longshore.spec import ModelSource
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
def constant_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ModelSource]:
    """Models by number: each predicts its own number, whatever it is asked, so that an answer tells who gave it."""
    frame = read_table(str(PENGUINS))
    made: dict[int, ModelSource] = {}

    def make(number: int) -> ModelSource:
        if number not in made:
            directory = tmp_path_factory.mktemp("models") / str(number)
            trained = train_sklearn(
                frame,
                target="body_mass_g",
                estimator="sklearn.dummy.DummyRegressor",
                parameters={"strategy": "constant", "constant": float(number)},
                task="regression",
            )
            digest = save_model(directory, trained.model, trained.card)
            made[number] = ModelSource(
                uri=str(directory), format="sklearn", name="penguins", version=str(number), digest=digest
            )
        return made[number]

    return make
