"""Deep learning with the real frameworks. They run in an environment of their own, which is too large for the others:

$(tools/peer.sh frameworks)/python -m pytest tests/frameworks
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = ("torch", "tokenizers", "tensorflow", "keras", "ts", "model_archiver", "tensorflow_serving")

# what the frameworks say of their own parts, or of what they themselves do with others
EXEMPT = (
    "ignore:unclosed file .*ts.version.txt:ResourceWarning",
    "ignore:`torch.jit.:FutureWarning",
    "ignore:.*distutils Version classes are deprecated:DeprecationWarning",
    "ignore:In the future `np.object`:FutureWarning",
)

if importlib.util.find_spec("longshore") is None:
    # nothing is installed but what others made: the library is taken from this checkout
    subprocess.run([ROOT / "tools" / "layout.sh"], check=True)
    sys.path.insert(0, str(ROOT / "build" / "layout"))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT / "build" / "layout"), os.environ.get("PYTHONPATH")])
    )


def pytest_configure(config):
    for line in EXEMPT:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True, scope="session")
def _frameworks():
    missing = [module for module in MODULES if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed here: run them with $(tools/peer.sh frameworks)/python -m pytest "
            "tests/frameworks, as make test does"
        )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own; servers that live in it are ended."""
    from longshore.local import list_servers, stop

    place = tmp_path / "home"
    monkeypatch.setenv("LONGSHORE_HOME", str(place))
    yield place
    for name in sorted({server.name for server in list_servers()}):
        stop(name)


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits, 8 x 8 pixels: 600 to learn from, and 300 others."""
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_digits

    from longshore.packaging.images import encode_image

    found = load_digits()
    pixels = (found.images * (255 / 16)).astype(np.uint8)
    frame = pd.DataFrame({"photo": [encode_image(one) for one in pixels[:900]], "digit": found.target[:900]})
    return frame[:600], frame[600:].reset_index(drop=True)


@pytest.fixture(scope="session")
def penguins():
    """A table with numbers, categories and gaps."""
    from longshore.training import read_table

    return read_table(str(ROOT / "examples" / "data" / "penguins.csv"))


@pytest.fixture(scope="session")
def reviews():
    """Short texts that are praise or not by their words, with one that is missing."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    words = {"good": ["lovely", "great", "superb", "warm"], "bad": ["awful", "cold", "broken", "dull"]}
    filler = ["the", "room", "was", "and", "breakfast", "we", "found", "it", "staff"]
    rows = []
    for number in range(240):
        kind = ("good", "bad")[number % 2]
        chosen = [*rng.choice(filler, 6), *rng.choice(words[kind], 2)]
        rows.append(
            {"review": " ".join(rng.permutation(chosen)).capitalize() + ".", "nights": number % 7, "kind": kind}
        )
    rows[0]["review"] = None
    return pd.DataFrame(rows)
