"""The examples of the documentation, run as a reader would."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(longshore, path):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:longshore", path],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=longshore.environment(),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "http://127.0.0.1:" in done.stdout


def test_the_readme_shows_the_first_example():
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, code = (ROOT / "examples" / "01_compose.py").read_text(encoding="utf-8").partition("\n\n")
    assert code.strip() in shown
