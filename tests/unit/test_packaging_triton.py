"""Triton's model repositories."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from harness.torchserve import make_package
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

from longshore.errors import ConfigError, DigestMismatch, InvalidValue, ModelError
from longshore.leaving import for_triton
from longshore.packaging import TritonOptions, package_triton, read_card, save_onnx, verify
from longshore.packaging.onnx import OnnxFile
from longshore.packaging.triton import TritonTensor, triton_config
from longshore.spec import KServeOptions, ModelSource, Release, Service, Tls, TorchServeOptions
from longshore.targets.kserve import KServeTarget
from longshore.training import describe_onnx
from longshore.wire.messages import TRITON, message


def parsed(text):
    return text_format.Parse(text, message(TRITON, "ModelConfig")())


def onnx(tmp_path, **options):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"]).assign(kind=["x", "y"] * 20)
    model = LogisticRegression().fit(table[["a", "b"]].to_numpy(), table["kind"])
    content = convert_sklearn(
        model, initial_types=[("rows", FloatTensorType([None, 2]))], options={id(model): options}
    ).SerializeToString()
    digest = save_onnx(tmp_path / "model", content, describe_onnx(content, table, target="kind"))
    return ModelSource(uri=str(tmp_path / "model"), format="onnx", name="ab", digest=digest)


def test_the_file_that_people_read():
    rows = TritonTensor(name="rows", datatype="FP64", shape=(4,))
    words = TritonTensor(name="words", datatype="BYTES", shape=())
    text = triton_config("ab", "onnxruntime", [rows], [words], TritonOptions(max_batch_size=8, versions=(2, 3)))
    assert text == (
        'name: "ab"\n'
        "version_policy {\n  specific {\n    versions: 2\n    versions: 3\n  }\n}\n"
        "max_batch_size: 8\n"
        'input {\n  name: "rows"\n  data_type: TYPE_FP64\n  dims: 4\n}\n'
        'output {\n  name: "words"\n  data_type: TYPE_STRING\n  dims: 1\n  reshape {\n  }\n}\n'
        "instance_group {\n  count: 1\n  kind: KIND_CPU\n}\n"
        "dynamic_batching {\n  max_queue_delay_microseconds: 1000\n}\n"
        'backend: "onnxruntime"\n'
    )


def test_on_gpus_and_each_request_by_itself():
    options = TritonOptions(gpu=True, instances=2, max_queue_delay_seconds=None)
    config = parsed(triton_config("ab", "onnxruntime", (), (), options))
    assert (config.instance_group[0].kind, config.instance_group[0].count) == (1, 2)
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize(
    "changes", [{"max_batch_size": 0}, {"instances": 0}, {"max_queue_delay_seconds": -1}, {"versions": (0,)}]
)
def test_options_that_cannot_be_are_refused(changes):
    with pytest.raises(InvalidValue, match=f"TritonOptions.{next(iter(changes))}"):
        TritonOptions(**changes)


def test_an_onnx_model_becomes_a_repository_that_loads(tmp_path):
    source = onnx(tmp_path, zipmap=False)
    packaged = package_triton(source, str(tmp_path / "triton"), name="ab", version="3")
    place = tmp_path / "triton" / "ab" / "3"
    assert (packaged.format, packaged.uri) == ("triton", str(place))
    assert sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()) == [
        "ab/3/model.onnx",
        "ab/config.pbtxt",
        "model.json",
    ]
    verify(place, packaged.digest)
    assert read_card(place).example == read_card(tmp_path / "model").example
    config = parsed((place / "ab" / "config.pbtxt").read_text())
    file = OnnxFile((place / "ab" / "3" / "model.onnx").read_bytes(), "it")
    assert [(one.name, list(one.dims)) for one in config.input] == [("rows", [2])]
    assert {one.name for one in config.output} == {tensor.name for tensor in file.outputs}
    again = package_triton(source, str(tmp_path / "triton"), name="ab", version="3")
    assert again == packaged


def test_what_triton_cannot_serve_is_told(tmp_path, constant_models):
    with pytest.raises(ConfigError, match="is a map, which Triton does not give"):
        package_triton(onnx(tmp_path), str(tmp_path / "triton"), name="ab", version="1")
    with pytest.raises(ConfigError, match=r"no backend for sklearn \(.*model.joblib\)"):
        package_triton(constant_models(1), str(tmp_path / "triton"), name="ab", version="1")
    with pytest.raises(InvalidValue, match="name"):
        package_triton(constant_models(1), str(tmp_path / "triton"), name="../ab", version="1")
    assert not (tmp_path / "triton").exists()


def test_a_model_that_was_changed_or_does_not_load_is_not_packaged(tmp_path):
    source = onnx(tmp_path, zipmap=False)

    def refuse(model):
        raise ModelError(f"{model.name} does not load")

    with pytest.raises(ModelError, match="model does not load"):
        package_triton(source, str(tmp_path / "triton"), name="ab", version="1", check=refuse)
    (tmp_path / "model" / "model.onnx").write_bytes(b"other")
    with pytest.raises(DigestMismatch):
        package_triton(source, str(tmp_path / "triton"), name="ab", version="1")
    assert not (tmp_path / "triton").exists()


def test_what_is_packaged_for_torchserve_moves_on_to_triton(tmp_path):
    source = onnx(tmp_path, zipmap=False)
    inside = make_package(source, tmp_path / "packages" / "ab" / "3", "3")
    options = TorchServeOptions(anonymous=True, plaintext=True)
    service = Service(name="ab", port=8443, image="torchserve:1", secrets=["bucket"], torchserve=options)
    made, wanted = for_triton(replace(inside, version="3"), service, "store")
    assert made.uri == str(tmp_path / "packages" / "triton" / "ab" / "3")
    direct = package_triton(source, str(tmp_path / "triton"), name="ab", version="3")
    assert (made.format, made.digest) == ("triton", direct.digest)
    assert wanted == Service(name="ab", secrets=["bucket"], kserve=KServeOptions(storage_secret="store"))
    stored = replace(made, uri="s3://packages/triton/ab/3")
    (rendered,) = KServeTarget().render(Release(service=wanted, model=stored))
    assert rendered["spec"]["predictor"]["model"]["runtime"] == "kserve-tritonserver"


@pytest.mark.parametrize("options", [{"token_secret": "tokens", "plaintext": True}, {"tls": Tls(secret="tls")}])
def test_tokens_and_tls_are_not_lost_on_the_way(tmp_path, options):
    package = ModelSource(uri=str(tmp_path), format="torchserve", name="ab")
    with pytest.raises(InvalidValue, match="its gateway asks for tokens and speaks TLS"):
        for_triton(package, Service(name="ab", torchserve=TorchServeOptions(**options)))
