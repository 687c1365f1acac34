"""The same job in plain Python: no pipeline, no Kubeflow, only the SDK."""

from pathlib import Path

from longshore import ModelSource, Service
from longshore.deployment import deploy_model
from longshore.home import home
from longshore.packaging import load_model, save_model
from longshore.training.data import read_table
from longshore.training.fit import train_sklearn
from longshore.training.splitting import split
from longshore.validation.evaluate import evaluate

table = read_table("examples/data/penguins.csv")
train, test = split(table, target="body_mass_g", method="random", test_size=0.2, seed=0)

trained = train_sklearn(train, target="body_mass_g", estimator="sklearn.linear_model.Ridge", seed=0)
directory = Path(home(), "examples", "body-mass")
digest = save_model(directory, trained.model, trained.card)
print(evaluate(load_model(directory, digest), test, target="body_mass_g").metrics)

model = ModelSource(uri=str(directory), format=trained.card.format, name="body-mass", digest=digest)
served = deploy_model(model, Service(name="body-mass"))
print(served.endpoint.url, served.endpoint.predict(trained.card.example))
