"""Between our values and the metadata of Kubeflow artifacts."""

import json

import pytest
from kfp import dsl

from longshore.artifacts import read_endpoint, read_model, write_classification, write_endpoint, write_model
from longshore.errors import ConfigError, InvalidValue
from longshore.spec import Endpoint, ModelSource
from longshore.validation.curves import RocCurve
from longshore.validation.evaluate import Confusion

MODEL = ModelSource(uri="s3://b/iris/3", format="sklearn", name="iris", version="3", digest="sha256:" + "1" * 64)
ENDPOINT = Endpoint(
    name="iris",
    url="http://iris.example.com",
    model="iris",
    revision="iris-1",
    revision_url="http://127.0.0.1:1",
    protocols=("v1", "v2"),
    headers={"Host": "iris"},
)


def handed_on(artifact):
    """The artifact as the next step gets it: its metadata has been through JSON."""
    return type(artifact)(name=artifact.name, uri=artifact.uri, metadata=json.loads(json.dumps(artifact.metadata)))


def test_a_model_survives_the_way_to_the_next_step():
    artifact = dsl.Model(name="model", uri="/somewhere/else")
    write_model(artifact, MODEL, task="classification")
    assert read_model(handed_on(artifact)) == MODEL
    assert artifact.metadata["framework"] == "sklearn"
    assert artifact.metadata["task"] == "classification"


def test_a_model_without_a_version_stays_without():
    artifact = dsl.Model(name="model", uri="")
    write_model(artifact, ModelSource(uri="/m", format="sklearn", name="m"))
    assert read_model(handed_on(artifact)) == ModelSource(uri="/m", format="sklearn", name="m")


def test_an_importer_needs_to_say_the_format_only():
    artifact = dsl.Model(name="model", uri="s3://b/m", metadata={"format": "sklearn"})
    assert read_model(artifact) == ModelSource(uri="s3://b/m", format="sklearn", name="model")


def test_a_strange_model_is_refused_with_advice():
    with pytest.raises(ConfigError, match=r"s3://b/m has no 'format'.*importer"):
        read_model(dsl.Model(name="model", uri="s3://b/m"))


def test_what_was_tampered_with_is_refused():
    with pytest.raises(InvalidValue, match=r"ModelSource\.name"):
        read_model(dsl.Model(name="model", uri="/m", metadata={"format": "sklearn", "name": "../../etc"}))


def test_an_endpoint_survives_the_way_to_the_next_step():
    artifact = dsl.Artifact(name="endpoint", uri="")
    write_endpoint(artifact, ENDPOINT, seconds=1.5)
    assert artifact.uri == ENDPOINT.url
    assert read_endpoint(handed_on(artifact)) == ENDPOINT


def test_what_is_no_endpoint_is_refused():
    with pytest.raises(ConfigError, match="does not describe an endpoint"):
        read_endpoint(dsl.Artifact(name="endpoint", uri="x", metadata={"name": "iris"}))


def test_classification_metrics_are_what_the_ui_draws():
    artifact = dsl.ClassificationMetrics(name="c", uri="")
    curve = RocCurve(label="b", fpr=(0.0, 1.0), tpr=(0.0, 1.0), thresholds=(1.1, 0.0), auc=0.5)
    write_classification(artifact, Confusion(labels=("a", "b"), matrix=((3, 1), (0, 2))), [curve])
    content = json.loads(json.dumps(artifact.metadata))
    assert [entry["displayName"] for entry in content["confusionMatrix"]["annotationSpecs"]] == ["a", "b"]
    assert content["confusionMatrix"]["rows"] == [{"row": [3, 1]}, {"row": [0, 2]}]
    assert len(content["confidenceMetrics"]) == 2


def test_a_regression_leaves_classification_metrics_empty():
    artifact = dsl.ClassificationMetrics(name="c", uri="")
    write_classification(artifact, None, ())
    assert artifact.metadata == {}
