"""Packages for TorchServe, TensorFlow Serving and Triton, made and loaded by the real parts."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
from kfp import dsl

from longshore.components import package_tensorflow as package_tensorflow_step
from longshore.components import package_torchserve as package_torchserve_step
from longshore.components import package_triton as package_triton_step
from longshore.errors import ModelError
from longshore.packaging import (
    Batching,
    ServedModel,
    Workers,
    config_files,
    load_model,
    package_tensorflow,
    package_torchserve,
    package_triton,
    read_card,
    save_files,
    save_model,
    verify,
)
from longshore.packaging.archive import inspect_archive
from longshore.packaging.images import encode_image, image_text
from longshore.packaging.tfserving import WARMUP_FILE
from longshore.runner.run import run_pipeline
from longshore.serving.torchserve_handler import ImageHandler, TabularHandler
from longshore.spec import ModelSource
from longshore.training import train_sklearn, train_tensorflow, train_torch
from longshore.validation import check_model, check_saved_model, check_torchserve
from longshore.validation.torchserve import await_worker, running_torchserve

FOTO = {"name": "foto", "shape": [1], "datatype": "BYTES", "data": ["x"]}
SMALL = {"epochs": 2, "parameters": {"width": 8}}


def source(directory, digest, kind, name):
    return ModelSource(uri=str(directory), format=kind, name=name, version="3", digest=digest)


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "digits"
    digest = train_torch(digits[0], target="digit", **SMALL).save(directory)
    return source(directory, digest, "pytorch", "digits")


@pytest.fixture(scope="module")
def table(penguins, tmp_path_factory):
    trained = train_sklearn(penguins, target="species", estimator="sklearn.tree.DecisionTreeClassifier")
    directory = tmp_path_factory.mktemp("models") / "penguins"
    return source(directory, save_model(directory, trained.model, trained.card), "sklearn", "penguins")


@pytest.fixture(scope="module")
def saved_model(reviews, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "reviews"
    trained = train_tensorflow(reviews, target="kind", text_column="review", text_length=12, **SMALL)
    return source(directory, trained.save(directory), "tensorflow", "reviews")


@pytest.fixture(scope="module")
def store(pictures, table, tmp_path_factory):
    """Packages for TorchServe, stored: a picture's and a table's model."""
    place = tmp_path_factory.mktemp("torchserve")
    return place, [
        package_torchserve(model, str(place), name=model.name, version="3", workers=Workers(batch_size=4))
        for model in (pictures, table)
    ]


@pytest.fixture(scope="module")
def torchserve(store, tmp_path_factory):
    """A TorchServe with both of them."""
    archives = tmp_path_factory.mktemp("store")
    for package in store[1]:
        for path in Path(package.uri, "model-store").iterdir():
            (archives / path.name).write_bytes(path.read_bytes())
    settings = {"load_models": "all", "disable_token_authorization": True, "metrics_mode": "prometheus"}
    with running_torchserve(archives, {**settings, "max_request_size": 2**25}) as server:
        for name in ("digits", "penguins"):
            await_worker(server, name, "3")
        yield server


def test_an_archive_has_the_model_its_digest_and_what_answers(store, pictures):
    package = Path(store[1][0].uri)
    verify(package, store[1][0].digest)
    card = read_card(package)
    assert (card.format, store[1][0].format) == ("torchserve", "torchserve")
    assert sorted(card.files) == ["config/config.properties", "model-store/digits-3.mar"]
    archive = package / "model-store" / "digits-3.mar"
    info = inspect_archive(archive)
    assert (info.name, info.version, info.handler) == ("digits", "3", "handler.py")
    with zipfile.ZipFile(archive) as content:
        manifest = json.loads(content.read("MAR-INF/MANIFEST.json"))
        assert manifest["model"]["configFile"] == "model-config.yaml"
        assert pictures.digest in content.read("model-config.yaml").decode()
        assert "ImageHandler" in content.read("handler.py").decode()
        assert {"model/model.json", "model/model.pt2"} <= set(content.namelist())


def test_the_same_model_gives_the_same_package(store, pictures, tmp_path):
    again = package_torchserve(pictures, str(tmp_path), name="digits", version="3", workers=Workers(batch_size=4))
    assert again.digest == store[1][0].digest
    # and where it is stored already it stays
    package_torchserve(pictures, str(store[0]), name="digits", version="3", workers=Workers(batch_size=4))
    with pytest.raises(ModelError, match="versions are never overwritten"):
        package_torchserve(pictures, str(store[0]), name="digits", version="3", layout="kserve")


def test_the_archiver_touches_nothing_of_others(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # by itself it would delete a folder of this name
    (tmp_path / "digits").mkdir()
    package_torchserve(pictures, str(tmp_path / "store"), name="digits", version="3")
    assert (tmp_path / "digits").is_dir()


def test_a_package_works_in_a_real_torchserve(store):
    checked = check_torchserve(Path(store[1][1].uri))
    assert (checked.server, checked.rows) == ("TorchServe 0.12.0", 2)
    assert "**TorchServe 0.12.0** loaded the package" in checked.to_markdown()


def test_a_package_that_cannot_load_is_told_in_the_workers_words(table, tmp_path):
    """Another digest in the archive's configuration than the model has."""
    package_torchserve(table, str(tmp_path), name="penguins", version="3")
    package = tmp_path / "penguins" / "3"
    archive = package / "model-store" / "penguins-3.mar"
    with zipfile.ZipFile(archive) as content:
        entries = {name: content.read(name) for name in content.namelist()}
    entries["model-config.yaml"] = entries["model-config.yaml"].replace(b"sha256:", b"sha256:0")
    with zipfile.ZipFile(archive, "w") as content:
        for name, value in entries.items():
            content.writestr(name, value)
    with pytest.raises(ModelError, match=r"TorchServe cannot load penguins, version 3: .*DigestMismatch"):
        check_torchserve(package)


def test_what_is_not_to_be_stored_is_not(table, tmp_path):
    def refuse(package):
        assert (package / "model-store" / "penguins-3.mar").is_file()
        raise ModelError("it does not work")

    with pytest.raises(ModelError, match="it does not work"):
        package_torchserve(table, str(tmp_path), name="penguins", version="3", check=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["standalone", "kserve"])
def test_torchserve_starts_with_the_configuration_of_both_layouts(table, tmp_path, layout):
    workers = Workers(min_workers=1, max_workers=2, batch_size=3)
    package_torchserve(table, str(tmp_path), name="penguins", version="3", layout=layout, workers=workers)
    package = tmp_path / "penguins" / "3"
    lines = (package / "config" / "config.properties").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines)
    ours = {key: value for key, value in given.items() if "address" not in key and "port" not in key}
    with running_torchserve(package / "model-store", {**ours, "model_store": str(package / "model-store")}) as server:
        keys = server.folder / "key_file.json"
        token = json.loads(keys.read_text())["management"]["key"] if layout == "standalone" else "none"
        url, headers = f"{server.management}/models/penguins", {"Authorization": f"Bearer {token}"}
        (described,) = requests.get(url, headers=headers, timeout=30).json()
        assert (described["modelVersion"], described["modelUrl"]) == ("3", "penguins-3.mar")
        assert (described["minWorkers"], described["maxWorkers"], described["batchSize"]) == (1, 2, 3)
        assert keys.exists() == (layout == "standalone")
        refused = requests.get(url, timeout=30)
        assert refused.status_code == (400 if layout == "standalone" else 200)


def test_torchserve_answers_as_every_server_does(torchserve, pictures, table):
    for model in (pictures, table):
        loaded = load_model(Path(model.uri))
        rows = [dict(row) for row in loaded.card.example]
        content = {"instances": rows, "parameters": {"probabilities": True}}
        answer = requests.post(f"{torchserve.inference}/predictions/{model.name}", json=content, timeout=60)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["classes"] == list(loaded.card.signature.classes)
        v1 = requests.post(
            f"{torchserve.inference}/v1/models/{model.name}:predict", json={"instances": rows}, timeout=60
        )
        assert v1.json() == {"predictions": answer.json()["predictions"]}


def test_torchserve_answers_v2(torchserve, pictures):
    pixels = np.zeros((2, 8, 8, 1), int)
    tensor = {"name": "photo", "shape": [2, 8, 8, 1], "datatype": "UINT8", "data": pixels.reshape(-1).tolist()}
    answer = requests.post(
        f"{torchserve.inference}/v2/models/digits/infer", json={"id": "7", "inputs": [tensor]}, timeout=60
    ).json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "digits", "3")
    assert answer["outputs"][0]["shape"] == [2]


def test_torchserve_takes_a_picture_as_it_is(torchserve):
    picture = np.full((8, 8), 90, np.uint8)
    plain = requests.post(f"{torchserve.inference}/predictions/digits", data=encode_image(picture), timeout=60)
    asked = {"instances": [{"photo": image_text(picture)}]}
    assert plain.json() == requests.post(f"{torchserve.inference}/predictions/digits/3", json=asked, timeout=60).json()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"instances": [{"photo": "x"}]}, "row 0, column 'photo': expected a picture in base64, got 'x'"),
        ({"instances": []}, "there are no rows"),
        ({"rows": []}, "'instances' must be an array"),
        ({"inputs": [FOTO]}, "there is no input for column 'photo'"),
    ],
)
def test_torchserve_refuses_by_the_field(torchserve, content, says):
    answer = requests.post(f"{torchserve.inference}/predictions/digits", json=content, timeout=60)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


class Context:
    """What the envelopes ask of TorchServe's context."""

    def __init__(self, directory, digest):
        self.system_properties = {"model_dir": str(directory)}
        self.manifest = {"model": {"modelName": "m", "modelVersion": "3"}}
        self.model_yaml_config = {"handler": {"digest": digest}}

    def get_request_header(self, idx, key):
        return None

    def get_request_id(self, idx):
        return "request-1"


@pytest.fixture(scope="module")
def enveloped(pictures, table, tmp_path_factory):
    """TorchServe's own envelopes around the handlers."""
    import shutil

    from ts.torch_handler.request_envelope.kserve import KServeEnvelope
    from ts.torch_handler.request_envelope.kservev2 import KServev2Envelope

    def make(kind, model, handler):
        directory = tmp_path_factory.mktemp("archive")
        shutil.copytree(model.uri, directory / "model")
        made, context = handler(), Context(directory, model.digest)
        made.initialize(context)
        envelope = (KServeEnvelope if kind == "v1" else KServev2Envelope)(made.handle)
        return lambda body: envelope.handle([{"body": body}], context)

    return {"v1": make("v1", table, TabularHandler), "v2": make("v2", pictures, ImageHandler)}


def test_kserves_envelopes_are_answered(enveloped, table):
    rows = [dict(row) for row in read_card(Path(table.uri)).example]
    (answer,) = enveloped["v1"]({"instances": rows})
    assert len(answer["predictions"]) == 2
    tensor = {"name": "photo", "shape": [2, 8, 8, 1], "datatype": "UINT8", "data": [0] * 128}
    (answer,) = enveloped["v2"]({"inputs": [tensor]})
    assert (answer["model_name"], answer["outputs"][0]["shape"]) == ("m", (2,))
    one = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [image_text(np.zeros((8, 8), np.uint8))]}
    assert len(enveloped["v2"]({"inputs": [one]})[0]["outputs"][0]["data"]) == 1


def test_a_bad_row_in_an_envelope_is_a_bad_request(enveloped):
    from ts.utils.util import PredictionException

    with pytest.raises(PredictionException, match="column 'sepal' is unknown") as raised:
        enveloped["v1"]({"instances": [{"sepal": 1}]})
    assert raised.value.error_code == 400


def test_a_saved_model_is_held_to_its_card_and_stored(saved_model, tmp_path):
    packaged = package_tensorflow(saved_model, str(tmp_path), name="reviews", version="4", check=check_saved_model)
    assert (packaged.digest, packaged.version) == (saved_model.digest, "4")
    place = tmp_path / "reviews" / "4"
    assert (place / "saved_model.pb").is_file()
    checked = check_saved_model(place)
    assert checked.server.startswith("TensorFlow 2.")


def test_the_configuration_is_what_tensorflow_serving_reads(tmp_path):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    served = ServedModel(name="reviews", base_path=str(tmp_path), versions=(3, 4), labels={"stable": 3, "canary": 4})
    files = config_files([served], Batching(max_batch_size=8))
    config = text_format.Parse(files["models.config"], model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("reviews", str(tmp_path), "tensorflow")
    assert dict(model.version_labels) == {"stable": 3, "canary": 4}
    assert list(model.model_version_policy.specific.versions) == [3, 4]


def test_its_requests_to_warm_up_with_are_what_tensorflow_serving_reads(saved_model):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = str(Path(saved_model.uri, WARMUP_FILE))
    (record,) = tf.data.TFRecordDataset(path).as_numpy_iterator()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert request.model_spec.signature_name == "serving_default"
    tensors = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
    assert tensors["review"].dtype == tf.string
    answer = tf.saved_model.load(saved_model.uri).signatures["serving_default"](**tensors)
    assert answer["predict"].shape == [2]


def test_a_saved_model_that_is_not_what_its_card_says_is_refused(saved_model, tmp_path):
    import tensorflow as tf

    card, files = read_card(Path(saved_model.uri)), {}
    for path in Path(saved_model.uri).rglob("*"):
        if path.is_file() and path.name != "model.json":
            files[path.relative_to(saved_model.uri).as_posix()] = path.read_bytes()

    def write(content):
        def done(work):
            for name, value in content.items():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                (work / name).write_bytes(value)

        return done

    from dataclasses import replace

    other = replace(card.feeds[0], datatype="FP64")
    save_files(tmp_path / "a", write(files), replace(card, feeds=(other, *card.feeds[1:])))
    with pytest.raises(ModelError, match="its signature 'serving_default' takes"):
        check_saved_model(tmp_path / "a")
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
        writer.write(b"")
    save_files(tmp_path / "b", write({**files, WARMUP_FILE: (tmp_path / "records").read_bytes()}), card)
    with pytest.raises(ModelError, match=f"a request in {WARMUP_FILE} fails"):
        check_saved_model(tmp_path / "b")


@pytest.mark.parametrize(("save_as", "backend"), [("onnx", "onnxruntime"), ("torchscript", "pytorch")])
def test_networks_become_a_repository_of_triton(digits, tmp_path, save_as, backend):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    trained = train_torch(digits[0][:100], target="digit", save_as=save_as, epochs=1, parameters={"width": 8})
    digest = trained.save(tmp_path / "m")
    model = source(tmp_path / "m", digest, trained.card.format, "digits")
    packaged = package_triton(model, str(tmp_path / "triton"), name="digits", version="2", check=check_model)
    place = Path(packaged.uri, "digits")
    config = text_format.Parse((place / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("digits", backend, 64)
    (taken,), (given,) = config.input, config.output
    assert (list(taken.dims), taken.data_type) == ([8, 8, 1], model_config_pb2.TYPE_UINT8)
    assert (list(given.dims), given.data_type) == ([10], model_config_pb2.TYPE_FP32)
    assert {path.name for path in (place / "2").iterdir()} == {"model.onnx" if save_as == "onnx" else "model.pt"}
    if save_as == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(place / "2" / "model.onnx"))
        (answer,) = session.run([given.name], {taken.name: np.zeros((3, 8, 8, 1), np.uint8)})
        assert answer.shape == (3, 10)


def test_a_saved_model_becomes_one_too(saved_model, tmp_path):
    packaged = package_triton(saved_model, str(tmp_path), name="reviews", version="2")
    assert Path(packaged.uri, "reviews", "2", "model.savedmodel", "saved_model.pb").is_file()
    assert 'name: "review"\n  data_type: TYPE_STRING' in Path(packaged.uri, "reviews", "config.pbtxt").read_text()


@dsl.pipeline(name="packages")
def packages(table: str, network: str):
    kinds = {"format": "sklearn", "name": "penguins", "version": "3"}
    model = dsl.importer(artifact_uri=table, artifact_class=dsl.Model, metadata=kinds)
    package_torchserve_step(model=model.output, layout="kserve", batch_size=1)
    kinds = {"format": "tensorflow", "name": "reviews", "version": "4"}
    network = dsl.importer(artifact_uri=network, artifact_class=dsl.Model, metadata=kinds)
    package_tensorflow_step(model=network.output, versions=[3, 4], labels={"stable": 3, "canary": 4}, max_batch_size=16)
    package_triton_step(model=network.output, check=False)


def test_the_steps_check_store_and_report(home, table, saved_model):
    report = run_pipeline(packages, {"table": table.uri, "network": saved_model.uri})
    steps = ("torchserve", "tensorflow", "triton")
    places = {name: Path(report.step(f"package-{name}").outputs["uri"]) for name in steps}
    assert places["torchserve"] == home / "torchserve" / "penguins" / "3"
    assert places["tensorflow"] == home / "models" / "reviews" / "4"
    assert places["triton"] == home / "triton" / "reviews" / "4"
    assert "8085" in (places["torchserve"] / "config" / "config.properties").read_text()
    (config,) = home.rglob("package-tensorflow/config")
    assert {path.name for path in config.iterdir()} == {"models.config", "batching.config", "monitoring.config"}
    told = {path.parent.name: path.read_text() for path in home.rglob("package-*/report")}
    assert "TorchServe 0.12.0" in told["package-torchserve"]
    assert "TensorFlow 2." in told["package-tensorflow"]
    assert told["package-triton"] == "It was not tried in its server.\n"
    assert os.environ["LONGSHORE_HOME"] == str(home)
