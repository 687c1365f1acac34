"""Programs built from Go modules, once: they are kept outside the checkout under the digest of what they are built of.

The folders beside this package (``modules/NAME``) are Go modules; :data:`PROGRAMS` says what each gives.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.system import Missing, cache_folder, locked

__all__ = ["KUBERNETES_VERSION", "PROGRAMS", "build", "built", "module_folder"]

MODULES = Path(__file__).parents[1] / "modules"
KUBERNETES_VERSION = "1.34.4"


@dataclass(frozen=True)
class _Program:
    """One executable.

    Args:
        package: The Go package.
        patch: A file of the package, a text in it and what shall stand there instead. The build fails if the text is
            not there.
    """

    package: str
    patch: tuple[str, str, str] | None = None


PROGRAMS: dict[str, dict[str, _Program]] = {
    "kubernetes": {
        "etcd": _Program("go.etcd.io/etcd/server/v3"),
        **{
            name: _Program(f"k8s.io/kubernetes/cmd/{name}")
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            )
        },
    },
    "kwok": {"kwok": _Program("sigs.k8s.io/kwok/cmd/kwok")},
    "kserve": {
        "kserve-manager": _Program(
            "github.com/kserve/kserve/cmd/manager",
            # as it is, the webhook server listens on all interfaces of the machine
            ("main.go", "Port: options.webhookPort,", 'Host: "127.0.0.1", Port: options.webhookPort,'),
        )
    },
    "llmisvc": {
        "kserve-llmisvc": _Program(
            "github.com/kserve/kserve/cmd/llmisvc",
            ("main.go", "webhook.Options{Port:", 'webhook.Options{Host: "127.0.0.1", Port:'),
        )
    },
    "coredns": {"coredns": _Program(".")},
    "images": {"pause": _Program("./pause"), "registry": _Program("./registry")},
}

_MAJOR, _MINOR, _ = KUBERNETES_VERSION.split(".")
_VERSION_PACKAGE = "k8s.io/component-base/version"
_LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X {_VERSION_PACKAGE}.gitVersion=v{KUBERNETES_VERSION}",
        f"-X {_VERSION_PACKAGE}.gitMajor={_MAJOR}",
        f"-X {_VERSION_PACKAGE}.gitMinor={_MINOR}",
    ]
)


def built(module: str) -> Path:
    """The folder with a module's programs.

    Raises:
        Missing: If they were not built yet.
    """
    place = _place(module)
    if not (place / ".complete").exists():
        raise Missing(f"the programs of tests/cluster/modules/{module} are not built: run 'make cluster-parts'")
    return place


def build(module: str) -> Path:
    """Build a module's programs, unless that was done before; returns their folder.

    Raises:
        Missing: If Go is absent or the build failed.
    """
    place = _place(module)
    if (place / ".complete").exists():
        return place
    with locked(place.with_suffix(".lock")):
        if (place / ".complete").exists():
            return place
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name, program in PROGRAMS[module].items():
            _compile(module, program, place / name)
        (place / ".complete").touch()
    return place


@functools.cache
def module_folder(module: str, dependency: str) -> Path:
    """Where the source of a Go module's dependency lies: its CRDs and manifests are there.

    Raises:
        Missing: If it cannot be had.
    """
    _go(module, "mod", "download", dependency)
    return Path(json.loads(_go(module, "list", "-m", "-json", dependency))["Dir"])


def _place(module: str) -> Path:
    content = hashlib.sha256(_LDFLAGS.encode())
    content.update(repr(PROGRAMS[module]).encode())
    for path in sorted((MODULES / module).rglob("*")):
        if path.is_file():
            content.update(str(path.relative_to(MODULES)).encode() + b"\0" + path.read_bytes())
    return cache_folder() / "bin" / f"{module}-{content.hexdigest()[:16]}"


def _compile(module: str, program: _Program, output: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        what = [program.package] if program.patch is None else _patched(module, program, Path(scratch))
        _go(module, "build", "-trimpath", "-ldflags", _LDFLAGS, "-o", str(output), *what)


def _patched(module: str, program: _Program, scratch: Path) -> list[str]:
    """Write a changed copy of a program's files."""
    assert program.patch is not None
    name, text, instead = program.patch
    package = json.loads(_go(module, "list", "-json=Dir,GoFiles", program.package))
    for file in package["GoFiles"]:
        content = (Path(package["Dir"]) / file).read_text()
        if file == name and content.count(text) != 1:
            raise Missing(f"{file} does not have the text {text!r} exactly once: the patch in builds.py is outdated")
        (scratch / file).write_text(content.replace(text, instead) if file == name else content)
    return [str(scratch / file) for file in package["GoFiles"]]


def _go(module: str, *arguments: str) -> str:
    if shutil.which("go") is None:
        raise Missing("Go is missing: install Go 1.26 or later (https://go.dev/dl)")
    done = subprocess.run(
        ["go", *arguments],
        cwd=MODULES / module,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"'go {arguments[0]}' failed in tests/cluster/modules/{module}: {done.stderr.strip()[-2000:]}")
    return done.stdout
