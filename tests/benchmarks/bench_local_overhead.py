"""What the local runner adds to the work of the steps, against kfp's own ``SubprocessRunner(use_venv=False)``.

The same compiled pipelines run through both, in turn. Overhead is the wall time of the run less the time that the
bodies of the steps measure for themselves, by step. What a body imports is its own work; how long a pipeline takes
whose steps all import pandas and scikit-learn is measured apart, as whole wall time.
"""

import contextlib
import io
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from kfp import dsl, local
from rows import Row, compare

from longshore.authoring import component
from longshore.runner import run_pipeline

STEPS = 10
LOADING_STEPS = 4
RUNS = 5
LOADING_RUNS = 3
PEER = "kfp SubprocessRunner"


@component
def work(before: float) -> float:
    """Count for a while and add the time it took."""
    import time

    began = time.perf_counter()
    sum(i * i for i in range(200_000))
    return before + time.perf_counter() - began


@component
def load(before: float) -> float:
    """Import what most steps of a training pipeline import."""
    import time

    began = time.perf_counter()
    import pandas as pd
    import sklearn.ensemble
    import sklearn.pipeline

    assert pd.DataFrame is not None, sklearn.ensemble
    return before + time.perf_counter() - began


@dsl.pipeline(name="working")
def working() -> float:
    """Ten steps, one after the other."""
    task = work(before=0.0)
    for _ in range(STEPS - 1):
        task = work(before=task.output)
    return task.output


@dsl.pipeline(name="loading")
def loading() -> float:
    """Steps that load libraries."""
    task = load(before=0.0)
    for _ in range(LOADING_STEPS - 1):
        task = load(before=task.output)
    return task.output


def ours(pipeline: Any) -> tuple[float, float]:
    """Wall time of a run through longshore, and the time in the bodies."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["LONGSHORE_HOME"] = home
        began = time.perf_counter()
        report = run_pipeline(pipeline)
        return time.perf_counter() - began, report.outputs["Output"]


def theirs(pipeline: Any) -> tuple[float, float]:
    """The same through kfp."""
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
        began = time.perf_counter()
        task = pipeline()
        return time.perf_counter() - began, task.output


def overhead(run: Callable[[Any], tuple[float, float]]) -> float:
    """Seconds by step that are not the bodies'."""
    wall, bodies = run(working)
    return (wall - bodies) / STEPS


def bench() -> list[Row]:
    """Overhead by step, and wall time of steps that load libraries."""
    ours(working), theirs(working)
    plain = [(overhead(ours), overhead(theirs)) for _ in range(RUNS)]
    loaded = [(ours(loading)[0], theirs(loading)[0]) for _ in range(LOADING_RUNS)]
    return [
        compare("local overhead by step", "s", *_sides(plain), at_most=0.1),
        compare(f"run of {LOADING_STEPS} steps that load pandas and scikit-learn", "s", *_sides(loaded)),
    ]


def _sides(pairs: list[tuple[float, float]]) -> tuple[list[float], str, list[float]]:
    return [pair[0] for pair in pairs], PEER, [pair[1] for pair in pairs]
