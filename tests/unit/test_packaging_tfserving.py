"""TensorFlow Serving's configuration files and requests to warm up with."""

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from longshore.errors import InvalidValue, ModelError
from longshore.packaging import Batching, ServedModel, config_files, package_tensorflow
from longshore.packaging.tfserving import batching_config, models_config, monitoring_config, warmup_record
from longshore.wire.messages import TENSORFLOW_SERVING, message


def parsed(name, text):
    return text_format.Parse(text, message(TENSORFLOW_SERVING, name)())


def served(**changes):
    return ServedModel(**{"name": "iris", "base_path": "/models/iris", **changes})


def test_versions_side_by_side_with_labels():
    text = models_config([served(versions=(42, 43), labels={"stable": 42, "canary": 43})])
    assert text == (
        "model_config_list {\n"
        "  config {\n"
        '    name: "iris"\n'
        '    base_path: "/models/iris"\n'
        '    model_platform: "tensorflow"\n'
        "    model_version_policy {\n"
        "      specific {\n"
        "        versions: 42\n"
        "        versions: 43\n"
        "      }\n"
        "    }\n"
        "    version_labels {\n"
        '      key: "canary"\n'
        "      value: 43\n"
        "    }\n"
        "    version_labels {\n"
        '      key: "stable"\n'
        "      value: 42\n"
        "    }\n"
        "  }\n"
        "}\n"
    )


def test_the_newest_versions_whatever_they_are():
    (config,) = parsed("ModelServerConfig", models_config([served(latest=2)])).model_config_list.config
    assert config.model_version_policy.latest.num_versions == 2


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip()))
def test_no_path_breaks_out_of_its_quotes(path):
    path = "/models/" + path.replace("://", "")
    (config,) = parsed("ModelServerConfig", models_config([served(base_path=path)])).model_config_list.config
    assert config.base_path == path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": 'iris" }'}, "ServedModel.name"),
        ({"base_path": "/models\n"}, "ServedModel.base_path"),
        ({"versions": (0,)}, "ServedModel.versions"),
        ({"versions": (2**63,)}, "ServedModel.versions"),
        ({"versions": (1, 1)}, "name each once"),
        ({"latest": 0}, "ServedModel.latest"),
        ({"versions": (1,), "labels": {"canary": 2}}, r"labels\['canary'\] = 2 is not valid: it has to be one of"),
        ({"labels": {"stable": 1}}, "it has to be one of"),
        ({"versions": (1,), "labels": {"a/b": 1}}, "use letters, digits"),
        ({"versions": (1,), "labels": {'a" value: 2': 1}}, "use letters, digits"),
    ],
)
def test_what_the_server_would_refuse_is_refused(changes, says):
    with pytest.raises(InvalidValue, match=says):
        served(**changes)


def test_a_model_stands_there_once():
    with pytest.raises(InvalidValue, match="name each once"):
        models_config([served(), served(base_path="/other")])


def test_batching_and_metrics():
    config = parsed("BatchingParameters", batching_config(Batching(max_batch_size=8, allowed_sizes=(2, 8))))
    assert (config.max_batch_size.value, config.batch_timeout_micros.value) == (8, 1000)
    assert list(config.allowed_batch_sizes) == [2, 8]
    assert batching_config(Batching(max_batch_size=8)).startswith("max_batch_size {\n  value: 8\n}\n")
    assert parsed("MonitoringConfig", monitoring_config()).prometheus_config.path == "/monitoring/prometheus/metrics"
    with pytest.raises(InvalidValue, match="use a path such as"):
        monitoring_config('/x" }')


@pytest.mark.parametrize(
    "changes",
    [
        {"max_batch_size": 0},
        {"timeout_seconds": -1},
        {"threads": 0},
        {"allowed_sizes": (8, 2)},
        {"allowed_sizes": (2, 4)},
        {"allowed_sizes": (0, 64)},
    ],
)
def test_batches_that_cannot_be_are_refused(changes):
    with pytest.raises(InvalidValue, match=f"Batching.{next(iter(changes))}"):
        Batching(**changes)


def test_all_files_by_name():
    assert set(config_files([served()])) == {"models.config", "monitoring.config"}
    assert set(config_files([served()], Batching())) == {"models.config", "monitoring.config", "batching.config"}


def test_a_request_to_warm_up_with_is_one_that_a_client_would_send():
    tensors = {
        "age": np.array([1.0, np.nan]),
        "island": np.array(["Dream", "é"], dtype=object),
        "photo": np.zeros((2, 2, 2, 1), np.uint8),
    }
    record = warmup_record("iris", tensors, {"age": "FP64", "island": "BYTES", "photo": "UINT8"})
    request = message(TENSORFLOW_SERVING, "PredictionLog").FromString(record).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("iris", "serving_default")
    found = {entry.key: entry.value for entry in request.inputs}
    assert [dim.size for dim in found["photo"].tensor_shape.dim] == [2, 2, 2, 1]
    assert list(found["island"].string_val) == [b"Dream", "é".encode()]


def test_what_is_no_saved_model_is_not_packaged(constant_models, tmp_path):
    with pytest.raises(ModelError, match=r"is of format 'sklearn' and has no saved_model.pb"):
        package_tensorflow(constant_models(1), str(tmp_path), name="iris", version="1")
    for version in ("01", str(2**63)):
        with pytest.raises(InvalidValue, match="version"):
            package_tensorflow(constant_models(1), str(tmp_path), name="iris", version=version)
    assert list(tmp_path.iterdir()) == []
