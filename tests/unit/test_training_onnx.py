"""ONNX models as others export them: described, packaged, loaded, and predicting as their originals do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from longshore.errors import ConfigError, DataError, DigestMismatch, InputError, MissingExtra, ModelError
from longshore.packaging import frame_to_rows, load_model, read_card, save_onnx
from longshore.serving import Predictor, protocol
from longshore.training import describe_onnx, read_onnx, read_table
from longshore.validation.evaluate import evaluate

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
COLUMNS = ["island", *NUMBERS, "year"]


@pytest.fixture(scope="module")
def table():
    return read_table(str(PENGUINS)).dropna().reset_index(drop=True)


def float32(table):
    return table[NUMBERS].to_numpy(np.float32)


def matrix(model, *, zipmap=True, width=4, kind=FloatTensorType):
    """A model that takes all columns in one tensor."""
    options = {id(model): {"zipmap": zipmap}} if hasattr(model, "predict_proba") else {}
    return convert_sklearn(model, initial_types=[("X", kind([None, width]))], options=options).SerializeToString()


@pytest.fixture(scope="module")
def by_column(table):
    """A model that takes a tensor for each column, of all kinds, with its preprocessing inside."""
    prepare = make_column_transformer((OneHotEncoder(), ["island"]), (StandardScaler(), [*NUMBERS, "year"]))
    model = make_pipeline(prepare, LogisticRegression(max_iter=1000)).fit(table[COLUMNS], table["species"])
    kinds = {"island": StringTensorType, "year": Int64TensorType}
    types = [(name, kinds.get(name, FloatTensorType)([None, 1])) for name in COLUMNS]
    return model, convert_sklearn(model, initial_types=types).SerializeToString()


def node(*nodes, inputs, outputs, **initializers):
    """A model made by hand, as other exporters make them."""
    held = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in initializers.items()]
    made = [[helper.make_tensor_value_info(name, *rest) for name, rest in group.items()] for group in (inputs, outputs)]
    graph = helper.make_graph(list(nodes), "model", *made, held)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="pytorch").SerializeToString()


def packaged(directory, content, table, **options):
    card = describe_onnx(content, table, **{"target": "species", **options})
    return load_model(directory, save_onnx(directory, content, card))


def test_a_tensor_for_each_column(by_column, table, tmp_path):
    model, content = by_column
    loaded = packaged(tmp_path / "m", content, table)
    card = loaded.card
    assert (card.format, card.task, card.estimator) == ("onnx", "classification", "skl2onnx")
    kinds = {column.name: column.kind for column in card.signature.inputs}
    assert kinds == {"island": "category", **dict.fromkeys(NUMBERS, "number"), "year": "integer"}
    assert card.signature.inputs[0].categories == ("Biscoe", "Dream", "Torgersen")
    # columns that the model does not take may be there
    assert card.signature.ignored == ("sex",)
    assert card.signature.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert card.parameters == {"label": "output_label", "probabilities": "output_probability"}
    assert loaded.predict(table).tolist() == model.predict(table[COLUMNS]).tolist()
    assert np.allclose(loaded.predict_proba(table), model.predict_proba(table[COLUMNS]), atol=1e-5)
    assert [bins.name for bins in card.baseline] == COLUMNS
    assert (
        evaluate(loaded, table, target="species").metrics["accuracy"]
        == (model.predict(table[COLUMNS]) == table["species"]).mean()
    )


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("target", ["species", "number", "flag"])
def test_all_columns_in_one_tensor(table, tmp_path, zipmap, target):
    labels = {
        "species": table["species"],
        "number": table["species"].map({"Adelie": 3, "Chinstrap": 5, "Gentoo": 8}),
        "flag": table["species"] == "Gentoo",
    }[target]
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(float32(table), labels)
    content = matrix(model, zipmap=zipmap)
    rows = table[NUMBERS].assign(**{target: labels})
    loaded = packaged(tmp_path / "m", content, rows, target=target)
    if not (target == "flag" and zipmap):  # ONNX has no maps from booleans: they come as 0 and 1
        assert loaded.card.signature.classes == tuple(model.classes_.tolist())
    assert loaded.predict(rows).tolist() == model.predict(float32(table)).tolist()
    assert np.allclose(loaded.predict_proba(rows), model.predict_proba(float32(table)), atol=1e-5)


def test_a_regression_and_doubles(table, tmp_path):
    features = table[NUMBERS[:3]].to_numpy()
    model = LinearRegression().fit(features, table["body_mass_g"])
    content = matrix(model, width=3, kind=DoubleTensorType)
    loaded = packaged(tmp_path / "m", content, table, target="body_mass_g", columns=NUMBERS[:3])
    assert (loaded.card.task, loaded.card.parameters) == ("regression", {"value": "variable"})
    assert np.allclose(loaded.predict(table), model.predict(features))
    assert loaded.predict_proba(table) is None


WEIGHTS = np.array([[1, 0, -1], [0, 1, -1]])
X = {"x": (TensorProto.FLOAT, ["batch", 2])}
SCORES = {"y": (TensorProto.FLOAT, ["batch", 3])}


@pytest.mark.parametrize(("softmax", "role"), [(True, "probabilities"), (False, "scores")])
def test_a_network_gives_scores_and_the_user_the_classes(tmp_path, softmax, role):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s" if softmax else "y"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["s"], ["y"]))
    content = node(*nodes, inputs=X, outputs=SCORES, w=WEIGHTS)
    table = pd.DataFrame({"a": [3.0, 0.0, -3.0], "b": [0.0, 3.0, -3.0]})
    with pytest.raises(ConfigError, match="does not name its classes"):
        describe_onnx(content, table, target="kind")
    with pytest.raises(ConfigError, match="scores 3 classes, and there are 2"):
        describe_onnx(content, table, target="kind", classes=["p", "q"])
    loaded = packaged(tmp_path / "m", content, table, target="kind", classes=["p", "q", "r"])
    assert loaded.card.parameters == {role: "y"}
    assert loaded.card.estimator == "pytorch"
    assert loaded.predict(table).tolist() == ["p", "q", "r"]
    shares = loaded.predict_proba(table)
    assert shares is None if not softmax else np.allclose(shares.sum(axis=1), 1)


def test_label_numbers_stand_for_the_classes_at_their_positions(table, tmp_path):
    codes = table["species"].astype("category").cat.codes
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(float32(table), codes)
    content = matrix(model, zipmap=False)
    loaded = packaged(tmp_path / "m", content, table[[*NUMBERS, "species"]])
    assert loaded.card.signature.classes == ("Adelie", "Chinstrap", "Gentoo")
    assert (loaded.predict(table[NUMBERS]) == table["species"]).mean() > 0.9
    with pytest.raises(ConfigError, match="names its classes itself: 0, 1, 2"):
        describe_onnx(matrix(model), table[NUMBERS], target="t", classes=["a", "b", "c"])


def test_rows_of_requests_reach_the_model_and_what_it_cannot_hold_is_refused(by_column, table, tmp_path):
    model, content = by_column
    loaded = packaged(tmp_path / "m", content, table)
    predictor = Predictor(loaded, name="penguins", digest=None, version=None, revision="r")
    (row,) = frame_to_rows(loaded.card.signature, table.head(1))
    answer = protocol.predict(predictor, {"instances": [row], "parameters": {"probabilities": True}})
    assert answer["predictions"] == model.predict(table[COLUMNS][:1]).tolist()
    assert list(answer["classes"]) == ["Adelie", "Chinstrap", "Gentoo"]
    assert sum(answer["probabilities"][0]) == pytest.approx(1, abs=1e-5)
    for change, words in [
        ({"year": None}, "row 1, column 'year': the value is missing or too large, and this model takes int64 values"),
        ({"year": 2**63}, "row 1, column 'year': the value is missing or too large"),
        ({"year": 2007.5}, "column 'year': expected a whole number"),
        ({"island": None}, "row 1, column 'island': the value is missing, and this model takes strings only"),
        ({"body_mass_g": 1e300}, "row 1, column 'body_mass_g': the number is too large"),
        ({"body_mass_g": "heavy"}, "column 'body_mass_g': expected a number"),
    ]:
        with pytest.raises(InputError, match=words):
            predictor.predict([row, {**row, **change}])


def test_the_model_is_one_of_platform_onnx(by_column, table, tmp_path):
    loaded = packaged(tmp_path / "m", by_column[1], table)
    predictor = Predictor.load(tmp_path / "m", name="m", digest=None, version=None, revision="r")
    assert predictor.gives_probabilities
    told = protocol.model_v2(predictor)
    assert told["platform"] == "onnx"
    assert {t["name"]: t["datatype"] for t in told["inputs"]} == {
        "island": "BYTES",
        **dict.fromkeys(NUMBERS, "FP64"),
        "year": "INT64",
    }
    assert loaded.card == read_card(tmp_path / "m")


def test_changed_bytes_are_not_loaded(by_column, table, tmp_path):
    _, content = by_column
    digest = save_onnx(tmp_path / "m", content, describe_onnx(content, table, target="species"))
    (tmp_path / "m" / "model.onnx").write_bytes(content + b"\0")
    with pytest.raises(DigestMismatch):
        load_model(tmp_path / "m", digest)
    with pytest.raises(DigestMismatch):
        load_model(tmp_path / "m")


def test_the_same_file_and_table_give_the_same_digest(by_column, table, tmp_path):
    _, content = by_column
    digests = {
        save_onnx(tmp_path / name, content, describe_onnx(content, table, target="species")) for name in ("a", "b")
    }
    assert len(digests) == 1


def identity(kind=TensorProto.FLOAT, shape=("n", 2), to=("n", 2)):
    return node(
        helper.make_node("Identity", ["x"], ["y"]), inputs={"x": (kind, list(shape))}, outputs={"y": (kind, list(to))}
    )


def test_what_is_no_rows_of_columns_is_refused(table, tmp_path):
    rows = table[NUMBERS[:2]]
    for content, error, words in [
        (b"nonsense", ModelError, "cannot be loaded by onnxruntime"),
        (identity(shape=(1, 2), to=(1, 2)), ModelError, "export it with a dynamic first dimension"),
        (identity(shape=("n", 3, 4), to=("n", 3, 4)), ModelError, "one input for each column, or with all columns"),
        (identity(kind=TensorProto.BFLOAT16), ModelError, "tensors of plain values"),
        (identity(shape=("n", 3), to=("n", 3)), ModelError, "takes 3 columns, and there are 2: bill_length_mm"),
        (identity(shape=("n",), to=("n",)), ModelError, "takes the column 'x'; there are bill_length_mm"),
        (identity(kind=TensorProto.BOOL), DataError, "should hold true or false"),
        (identity(kind=TensorProto.INT8), DataError, "should hold a whole number"),
    ]:
        with pytest.raises(error, match=words):
            describe_onnx(content, rows, target="species")
    with pytest.raises(DataError, match="no rows"):
        describe_onnx(identity(), rows.head(0), target="species")
    with pytest.raises(ModelError, match="neither a label or a score for each class"):
        describe_onnx(identity(kind=TensorProto.STRING), table[["island", "sex"]], target="species")
    with pytest.raises(DataError, match="input column 'wing' is not in the table"):
        describe_onnx(identity(), rows, target="species", columns=["wing", "bill_depth_mm"])


def test_weights_in_a_file_of_their_own_are_refused(tmp_path, monkeypatch):
    content = node(helper.make_node("MatMul", ["x", "w"], ["y"]), inputs=X, outputs=SCORES, w=WEIGHTS)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load_from_string(content), path, save_as_external_data=True, location="weights", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="cannot be loaded by onnxruntime"):
        describe_onnx(read_onnx(path), pd.DataFrame({"a": [1.0], "b": [2.0]}), target="kind", classes=["p", "q", "r"])


def test_booleans_and_whole_numbers_are_tensors_of_their_own(tmp_path):
    casts = [helper.make_node("Cast", [name], [f"{name}f"], to=TensorProto.FLOAT) for name in ("flag", "count")]
    content = node(
        *casts,
        helper.make_node("Add", ["flagf", "countf"], ["y"]),
        inputs={"flag": (TensorProto.BOOL, ["n", 1]), "count": (TensorProto.INT32, ["n", 1])},
        outputs={"y": (TensorProto.FLOAT, ["n", 1])},
    )
    table = pd.DataFrame({"count": [1, 2], "flag": [True, False], "sum": [2.0, 2.0]})
    loaded = packaged(tmp_path / "m", content, table, target="sum")
    assert [column.kind for column in loaded.card.signature.inputs] == ["boolean", "integer"]
    assert loaded.predict(table).tolist() == [2.0, 2.0]
    predictor = Predictor(loaded, name="m", digest=None, version=None, revision="r")
    with pytest.raises(InputError, match="row 0, column 'flag': the value is missing"):
        predictor.predict([{"flag": None, "count": 1}])
    with pytest.raises(InputError, match="row 0, column 'count': the value is missing or too large"):
        predictor.predict([{"flag": True, "count": 2**31}])


def test_a_card_that_does_not_fit_its_file_is_refused(by_column, table, tmp_path):
    _, content = by_column
    card = describe_onnx(content, table, target="species")
    save_onnx(tmp_path / "m", content, replace(card, parameters={"label": "mood"}))
    with pytest.raises(ModelError, match="has no output 'mood'"):
        load_model(tmp_path / "m")


def test_without_onnxruntime_the_extra_is_named(by_column, table, tmp_path, monkeypatch):
    _, content = by_column
    save_onnx(tmp_path / "m", content, describe_onnx(content, table, target="species"))
    monkeypatch.setattr("longshore.packaging.loading.find_spec", lambda name: None if name == "onnxruntime" else True)
    with pytest.raises(MissingExtra, match=r"longshore\[onnx\]"):
        load_model(tmp_path / "m")


def test_a_file_is_found_in_a_directory(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "model.onnx").write_bytes(b"1")
    assert read_onnx(tmp_path) == read_onnx(tmp_path / "inside" / "model.onnx") == b"1"
    (tmp_path / "other.onnx").write_bytes(b"2")
    with pytest.raises(ModelError, match="holds 2 files that end in .onnx"):
        read_onnx(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_onnx(tmp_path / "missing.onnx")
