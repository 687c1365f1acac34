"""``import longshore`` against ``import kfp``, each in fresh interpreters, in turn."""

from __future__ import annotations

import subprocess
import sys

from rows import Row, compare

RUNS = 7
# the names load when first used
EVERY_NAME = "[getattr(longshore, name) for name in longshore.__all__]"


def seconds_of(statement: str) -> float:
    """Time of a statement in a new interpreter."""
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def bench() -> list[Row]:
    """The time of the import, alone and with all that it defers."""
    statements = ("import longshore", f"import longshore; {EVERY_NAME}", "import kfp")
    for statement in statements:
        # the first import of each writes its byte code
        seconds_of(statement)
    bare, full, theirs = zip(*([seconds_of(each) for each in statements] for _ in range(RUNS)), strict=True)
    return [
        compare("import longshore", "s", bare, "import kfp", theirs, ratio_at_most=0.15),
        compare("import longshore and use each of its names", "s", full, "import kfp", theirs, ratio_at_most=0.15),
    ]
