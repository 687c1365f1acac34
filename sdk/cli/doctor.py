"""``longshore doctor``: what is missing for what, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import click

from longshore.cli.app import debug_option
from longshore.cli.catalogue import json_option
from longshore.cli.output import columns, echo_json
from longshore.extras import EXTRAS

__all__ = ["Check", "checks", "doctor"]

_FEATURES: Final = {
    "train": "training and validation",
    "registry": "the model registry",
    "serve": "serving on this machine",
    "monitor": "monitoring and drift",
    "xgboost": "XGBoost estimators",
    "lightgbm": "LightGBM estimators",
    "onnx": "ONNX models",
    "torch": "training and serving PyTorch networks, pictures and texts",
    "tensorflow": "training and serving TensorFlow networks",
    "torchserve": "packaging for TorchServe",
    "kserve": "predicting over V2 and gRPC, serving inside KServe's own model server",
    "s3": "s3:// storage",
    "gcs": "gs:// storage",
    "azure": "abfs:// storage",
}
_PROGRAMS: Final = (
    ("git", ("git",), "GitOps", "install git"),
    ("image builder", ("podman", "buildah", "docker"), "building images", "install podman or buildah"),
    ("nginx", ("nginx",), "splitting traffic on this machine", "install nginx"),
    ("kubectl", ("kubectl",), "looking into a cluster", "see https://kubernetes.io/docs/tasks/tools/"),
    ("java", ("java",), "TorchServe", "install a Java 17 runtime"),
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that longshore can use.

    Args:
        name: What was looked for.
        feature: What needs it.
        found: What is there, None if it is missing.
        remedy: How to get it.
        core: Whether nothing works without it.
    """

    name: str
    feature: str
    found: str | None
    remedy: str
    core: bool = False


def checks() -> Iterator[Check]:
    """Look for everything that longshore can use; nothing is imported and no network is asked."""
    yield _python()
    yield _kfp()
    for extra, modules in EXTRAS.items():
        yield _extra(extra, _FEATURES[extra], modules)
    for name, programs, feature, remedy in _PROGRAMS:
        paths = (shutil.which(program) for program in programs)
        yield Check(name=name, feature=feature, found=next(filter(None, paths), None), remedy=remedy)
    yield _kubeconfig()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info >= (3, 11) and sys.platform != "win32"
    return Check(
        name="python",
        feature="everything",
        found=version if fits else None,
        remedy=f"use Python 3.11 or later on Linux or macOS (this is {version} on {sys.platform})",
        core=True,
    )


def _kfp() -> Check:
    try:
        version = metadata.version("kfp")
    except metadata.PackageNotFoundError:
        version = ""
    return Check(
        name="kfp",
        feature="pipelines",
        found=version if version.startswith("2.17.") else None,
        remedy=f"pip install 'kfp>=2.17.0,<2.18' ({version or 'none'} is installed)",
        core=True,
    )


def _extra(extra: str, feature: str, modules: tuple[str, ...]) -> Check:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return Check(
        name=f"extra {extra}",
        feature=feature,
        found=None if missing else "installed",
        remedy=f"pip install 'longshore[{extra}]'" + (f" ({', '.join(missing)} missing)" if missing else ""),
    )


def _kubeconfig() -> Check:
    places = [place for place in os.environ.get("KUBECONFIG", "").split(os.pathsep) if place]
    candidates = [Path(place) for place in places] or [Path.home() / ".kube" / "config"]
    found = next((str(path) for path in candidates if path.is_file()), None)
    return Check(
        name="kubeconfig",
        feature="deploying to a cluster from here",
        found=found,
        remedy="set KUBECONFIG, or have your platform write ~/.kube/config",
    )


@click.command()
@json_option
@debug_option
def doctor(as_json: bool) -> int:
    """Say what is missing for what, and how to get it.

    The exit status is 1 only if longshore itself cannot work.
    """
    found = list(checks())
    broken = any(check.core and check.found is None for check in found)
    if as_json:
        echo_json({"ok": not broken, "checks": found})
    else:
        click.echo(columns([_row(check) for check in found]))
    return int(broken)


def _row(check: Check) -> tuple[str, ...]:
    if check.found is not None:
        return ("ok", check.name, check.feature, check.found)
    return ("BROKEN" if check.core else "missing", check.name, check.feature, check.remedy)
