"""The same data and seed give the same model directory, byte for byte, in whatever process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"

ESTIMATORS = [
    "sklearn.linear_model.LogisticRegression",
    "sklearn.ensemble.RandomForestClassifier",
    "sklearn.ensemble.HistGradientBoostingClassifier",
    "xgboost.XGBClassifier",
    "lightgbm.LGBMClassifier",
]

TRAIN = """
import json, os, sys
from pathlib import Path
import pandas as pd
from longshore.packaging import load_model, save_model
from longshore.training import read_dataset, train_sklearn, write_table

workspace = Path(os.environ["WORKSPACE"])
table = pd.read_csv(os.environ["PENGUINS"])
table = table.assign(tagged=table["sex"] == "male", day="2024-05-17", place=table["island"])
table.loc[::2, "day"] = "2024-06-01T10:00:00Z"
write_table(table, workspace / "table.parquet")
frame = read_dataset(workspace / "table.parquet")
digests = {}
for path in json.loads(sys.argv[1]):
    parameters = {} if "linear" in path else {"max_iter" if "Hist" in path else "n_estimators": 20}
    trained = train_sklearn(frame, target="species", estimator=path, parameters=parameters, seed=int(sys.argv[2]))
    directory = workspace / "models" / path
    digests[path] = save_model(directory, trained.model, trained.card)
    assert load_model(directory, digests[path]).predict(frame).shape == (344,)
print(json.dumps(digests))
"""

FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
import pandas as pd
from longshore.errors import StorageError
from longshore.packaging import save_model
from longshore.training import train_sklearn, write_table

trained = train_sklearn(pd.read_csv(os.environ["PENGUINS"]), target="species")
table = pd.read_csv(os.environ["PENGUINS"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (
    lambda: save_model(Path(sys.argv[1], "model"), trained.model, trained.card),
    lambda: write_table(table, Path(sys.argv[1], "table.parquet")),
):
    try:
        write()
    except StorageError as error:
        print(error)
"""


def run(code, *arguments, **env):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments],
        env={**os.environ, "PENGUINS": str(PENGUINS), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    def train(hash_seed, *, seed=0, estimators=ESTIMATORS, **env):
        workspace = tmp_path_factory.mktemp("digest")
        arguments = (json.dumps(estimators), str(seed))
        return json.loads(run(TRAIN, *arguments, PYTHONHASHSEED=hash_seed, WORKSPACE=str(workspace), **env))

    # glibc fills fresh memory with a pattern, so bytes that nobody wrote would show
    return train("1"), train("4711", MALLOC_PERTURB_="165"), train("1", seed=1, estimators=ESTIMATORS[1:2])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_processes_make_the_same_model(digests, estimator):
    first, second, _ = digests
    assert first[estimator] == second[estimator]


def test_different_models_have_different_digests(digests):
    first, _, other_seed = digests
    assert len(set(first.values())) == len(ESTIMATORS)
    assert other_seed[ESTIMATORS[1]] != first[ESTIMATORS[1]]


def test_a_disk_that_fills_up_midway_leaves_nothing(tmp_path):
    told = run(FULL_DISK, str(tmp_path)).splitlines()
    assert len(told) == 2
    assert all("could not be written: " in line and "File too large" in line for line in told)
    assert list(tmp_path.iterdir()) == []


def test_reading_a_card_or_errors_needs_no_heavy_library():
    code = (
        "import sys, longshore.packaging.card, longshore.training, longshore.packaging.model\n"
        "print(*{'pandas', 'numpy', 'sklearn', 'joblib', 'pyarrow', 'xgboost'} & set(sys.modules))"
    )
    assert run(code).strip() == ""
