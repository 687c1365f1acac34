"""Loading versions from a directory, and anew while they serve."""

import logging
import shutil
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.datasets import load_iris

from longshore.errors import DigestMismatch, InvalidValue, ModelError, StorageError
from longshore.packaging import directory_digest, save_model
from longshore.serving import Application
from longshore.serving.loading import Reload, Source, load_models
from longshore.training.fit import train_sklearn

NAMES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two model directories with other content."""
    iris = load_iris(as_frame=True)
    table = iris.data.set_axis(NAMES, axis="columns")
    table["species"] = [int(index) for index in iris.target]
    places = []
    for seed in (0, 1):
        trained = train_sklearn(
            table, target="species", estimator="sklearn.tree.DecisionTreeClassifier", parameters={"max_depth": 2 + seed}
        )
        places.append(tmp_path_factory.mktemp("models") / "iris")
        save_model(places[-1], trained.model, trained.card)
    return places


@pytest.fixture
def repository(stored, tmp_path):
    for version, place in zip(("9", "10"), stored, strict=True):
        shutil.copytree(place, tmp_path / "iris" / version)
    return tmp_path / "iris"


def source(uri, **changes) -> Source:
    return Source(**{"uri": str(uri), "name": "iris", "revision": "iris-1", "version": None, "digests": {}, **changes})


def test_a_directory_with_one_model_has_one_version(stored):
    models = load_models(source(stored[0], version="3", digests={None: directory_digest(stored[0])}))
    assert models.versions == ["3"]
    assert models.default.version == "3"


def test_a_directory_with_versions_has_them_all_and_the_highest_is_the_default(repository):
    (repository / "notes.txt").write_text("not a model")
    (repository / "11").mkdir()
    models = load_models(source(repository))
    assert models.versions == ["9", "10"]
    assert models.default.version == "10"
    assert len({id(predictor.metrics) for predictor in models.predictors}) == 1
    assert load_models(source(repository, version="9")).default.version == "9"


def test_what_the_digests_and_the_default_name_has_to_be_there(repository):
    with pytest.raises(InvalidValue, match="holds versions 9, 10"):
        load_models(source(repository, version="11"))
    with pytest.raises(InvalidValue, match="write VERSION=DIGEST"):
        load_models(source(repository, digests={None: "sha256:" + "0" * 64}))
    with pytest.raises(DigestMismatch):
        load_models(source(repository, digests={"9": "sha256:" + "0" * 64}))
    with pytest.raises(StorageError, match="no such directory"):
        load_models(source(repository / "none"))
    with pytest.raises(ModelError, match=r"has no model\.json"):
        load_models(source(repository.parent))


@pytest.fixture
def serving(repository):
    where = source(repository)
    application = Application(load_models(where))
    return application, Reload(application, partial(load_models, where)), repository


def samples(application, name):
    families = text_string_to_metric_families(application.metrics.render().decode())
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def reloads(application):
    return {labels["outcome"]: value for labels, value in samples(application, "longshore_reloads_total")}


def test_what_has_changed_is_loaded_anew_and_the_rest_stays(serving, stored):
    application, reload, repository = serving
    nine, ten = application.models.predictors
    shutil.copytree(stored[0], repository / "11")
    shutil.rmtree(repository / "10")
    assert reload()
    kept, new = application.models.predictors
    assert kept is nine
    assert (new.version, application.models.default) == ("11", new)
    assert {labels["version"] for labels, _ in samples(application, "longshore_model_info")} == {"9", "11"}
    assert reloads(application) == {"success": 1, "failure": 0}
    # what had begun is answered, and counted
    row = [[5.1, 3.5, 1.4, 0.2]]
    assert ten.predict(row).values == [0]
    new.predict(row)
    bins = [
        (labels["version"], value)
        for labels, value in samples(application, "longshore_feature_bin_total")
        if labels["feature"] == "petal_width" and value
    ]
    assert sorted(bins) == [("10", 1), ("11", 1)]


def test_other_content_under_the_same_version_replaces_it(serving, stored):
    application, reload, repository = serving
    _, ten = application.models.predictors
    shutil.rmtree(repository / "10")
    shutil.copytree(stored[0], repository / "10")
    assert reload()
    assert application.models.default is not ten
    # both are without a recorded digest: they are one series, which is still there
    assert {labels["version"] for labels, _ in samples(application, "longshore_model_info")} == {"9", "10"}


@pytest.mark.parametrize("broken", ["truncated", "tampered", "gone"])
def test_what_cannot_be_loaded_leaves_what_serves(serving, broken, caplog):
    application, reload, repository = serving
    before = application.models
    model = repository / "10" / "model.joblib"
    if broken == "truncated":
        model.write_bytes(model.read_bytes()[:100])
    elif broken == "tampered":
        model.write_bytes(model.read_bytes() + b"x")
    else:
        shutil.rmtree(repository)
    with caplog.at_level(logging.ERROR, "longshore.serving"):
        assert not reload()
    assert application.models is before
    assert "could not be loaded anew, and goes on (9, 10)" in caplog.text
    assert reloads(application) == {"success": 0, "failure": 1}
    assert {labels["version"] for labels, _ in samples(application, "longshore_model_info")} == {"9", "10"}
    assert before.default.predict([[5.1, 3.5, 1.4, 0.2]]).values == [0]
