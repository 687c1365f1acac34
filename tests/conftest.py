"""Rules for all tests."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PENGUINS = Path(__file__).parents[1] / "examples" / "data" / "penguins.csv"

# several threads for each of several processes only wait for each other on a small machine
os.environ.setdefault("OMP_NUM_THREADS", "1")


# a job in the background of a script ignores interrupts, and so would the processes that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or changes the registry and the servers of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGSHORE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def nobodys_connections() -> Iterator[None]:
    """No test leaves connections to servers that another one ends."""
    yield
    if (client := sys.modules.get("longshore.client")) is not None:
        client.close_kept()


@pytest.fixture(scope="session")
def constant_models(tmp_path_factory):
    """Models by number: each predicts its own number, whatever it is asked, so that an answer tells who gave it."""
    from longshore.packaging import save_model
    from longshore.spec import ModelSource
    from longshore.training.data import read_table
    from longshore.training.fit import train_sklearn

    frame = read_table(str(PENGUINS))
    made = {}

    def make(number):
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


@pytest.fixture(scope="session")
def iris_model(tmp_path_factory) -> Path:
    """The directory of a model of iris, whose classes are 0, 1 and 2; it is not to be changed."""
    from harness.serving import IRIS
    from sklearn.datasets import load_iris

    from longshore.packaging import save_model
    from longshore.training.fit import train_sklearn

    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(IRIS, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    trained = train_sklearn(table, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "iris"
    save_model(directory, trained.model, trained.card)
    return directory


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI every part is there: a skipped test is a failure, with the sentence that says what is missing.

    All but one: the CRDs in the folder of ``LONGSHORE_TEST_CRDS``, which no package registry has.
    """
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if not os.environ.get("LONGSHORE_TEST_CRDS") and why.startswith("Skipped: LONGSHORE_TEST_CRDS is not set"):
            return
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {why}"
