"""Make two trained versions of a SavedModel: ``saved_models.py FOLDER`` writes FOLDER/1 and FOLDER/2.

Run by a Python that has TensorFlow, with longshore on its path.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from longshore.training import train_tensorflow

rng = np.random.default_rng(0)
frame = pd.DataFrame(rng.normal(size=(400, 20)), columns=[f"x{number}" for number in range(20)])
frame["kind"] = np.where(frame.sum(axis=1) > 0, "high", "low")
for version in (1, 2):
    trained = train_tensorflow(frame, target="kind", seed=version, epochs=1, parameters={"width": 256})
    print(trained.save(Path(sys.argv[1]) / str(version)), flush=True)
