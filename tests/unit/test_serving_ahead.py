"""What is imported before there are workers."""

import subprocess
import sys

WHAT = """
import gc, sys
from longshore.serving.ahead import import_ahead
import_ahead(sys.argv[1])
assert gc.get_freeze_count() > 100_000
print(*sorted(set(sys.argv[2:]) & sys.modules.keys()))
"""


def test_a_face_and_what_models_are_made_of_are_there():
    others = ["django", "fastapi", "torch", "tensorflow"]
    asked = [sys.executable, "-c", WHAT, "flask", "flask", "sklearn.linear_model", *others]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["flask", "sklearn.linear_model"]


def test_what_is_not_installed_is_left_to_the_workers():
    what = f"import sys; sys.modules['flask'] = None\n{WHAT}"
    asked = [sys.executable, "-c", what, "flask", "longshore.serving.core"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["longshore.serving.core"]), done.stderr
