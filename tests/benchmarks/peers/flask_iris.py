"""The model in a plain application of Flask, as tutorials have it."""

import os

import flask
import joblib
import numpy as np

app = flask.Flask(__name__)
model = joblib.load(os.environ["MODEL"])


@app.post("/v1/models/iris:predict")
def predict():
    """Predict rows."""
    rows = flask.request.get_json()["instances"]
    return flask.jsonify(predictions=model.predict(np.array(rows)).tolist())
