"""An ONNX file from elsewhere, taken over by a pipeline and served by a real process."""

from pathlib import Path

import pytest
import requests
from kfp import dsl
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from longshore.components import deploy_model, evaluate_model, load_data, package_model, package_onnx, register_model
from longshore.packaging import read_card
from longshore.runner.run import run_pipeline
from longshore.training import read_table

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"
NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
COLUMNS = ["island", *NUMBERS, "year"]
ROWS = [
    dict(zip(COLUMNS, ("Torgersen", 39.1, 18.7, 181, 3750, 2007), strict=True)),
    dict(zip(COLUMNS, ("Biscoe", 50.0, 15.2, 218, 5700, 2009), strict=True)),
]


@pytest.fixture
def exported(tmp_path):
    table = read_table(str(PENGUINS)).dropna()
    prepare = make_column_transformer((OneHotEncoder(), ["island"]), (StandardScaler(), [*NUMBERS, "year"]))
    model = make_pipeline(prepare, LogisticRegression(max_iter=1000)).fit(table[COLUMNS], table["species"])
    kinds = {"island": StringTensorType, "year": Int64TensorType}
    types = [(name, kinds.get(name, FloatTensorType)([None, 1])) for name in COLUMNS]
    path = tmp_path / "exported.onnx"
    path.write_bytes(convert_sklearn(model, initial_types=types).SerializeToString())
    return path


@dsl.pipeline(name="take-over")
def take_over(file: str, data: str):
    found = dsl.importer(artifact_uri=file, artifact_class=dsl.Model)
    table = load_data(data=data)
    model = package_onnx(onnx=found.output, examples=table.outputs["dataset"], target="species")
    scored = evaluate_model(model=model.outputs["model"], test=table.outputs["dataset"])
    registered = register_model(model=model.outputs["model"], metrics=scored.outputs["metrics"], name="penguins")
    packaged = package_model(model=registered.outputs["registered"])
    deploy_model(model=packaged.outputs["packaged"], name="penguins")


def test_an_onnx_file_is_taken_over_judged_packaged_and_served(home, exported):
    report = run_pipeline(take_over, {"file": str(exported), "data": str(PENGUINS)})
    assert report.step("package-onnx").outputs["task"] == "classification"
    place = report.step("package-model").outputs
    card = read_card(Path(place["uri"]))
    assert (card.format, list(card.files)) == ("onnx", ["model.onnx"])
    assert report.step("package-onnx").outputs["digest"] == place["digest"]
    url = report.step("deploy-model").outputs["url"]
    predict = f"{url}/v1/models/penguins:predict"
    answer = requests.post(predict, json={"instances": ROWS, "parameters": {"probabilities": True}}, timeout=30).json()
    assert answer["predictions"] == ["Adelie", "Gentoo"]
    assert all(max(shares) > 0.5 for shares in answer["probabilities"])
    refused = requests.post(predict, json={"instances": [{**ROWS[0], "year": None}]}, timeout=30)
    assert refused.status_code == 400
    assert "column 'year': the value is missing" in refused.json()["error"]
    metrics = requests.get(f"{url}/metrics", timeout=30).text
    assert 'longshore_feature_bin_total{bin="0",feature="island"' in metrics
