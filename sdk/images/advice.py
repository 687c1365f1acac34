"""What went wrong in a build, found in what the builder wrote: pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["advice", "reason"]

_REASON: Final = re.compile(r"\bERROR\b|^\s*(error|E):|^Error|Cannot connect|denied|unauthorized", re.MULTILINE)
_NOISE: Final = re.compile(r"level=(error|warning) msg=\"Can't|^\s*$|exit status \d+$")

_ADVICE: Final = (
    (
        r"Cannot connect to the Docker daemon|/var/run/docker\.sock",
        "start Docker, or install podman or buildah, which take no daemon",
    ),
    (
        r"buildx component is missing|requires BuildKit|unknown flag: --(secret|mount)",
        "install Docker's buildx, or podman or buildah",
    ),
    (r"[Nn]o space left on device", "make room where the builder keeps its images"),
    (
        r"exec format error",
        "this machine runs no programs of that platform: build on one that does, or install qemu-user",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "the index has other files than those that longshore is locked to: take a mirror that keeps PyPI's own",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed|x509:",
        "--ca-bundle FILE has pip trust the certificates of your network; for registries, have the builder trust them",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        (
            "what --pip adds does not go with the versions that are locked: ask for another version of it, or name the "
            "package that it is at odds with in --pip as well, which takes that one's lock away"
        ),
    ),
    (
        r"No matching distribution found|Could not find a version",
        (
            "--pip-conf FILE names an index of your own; what is locked needs its wheels for the platform and the base "
            "image's Python there"
        ),
    ),
    (
        r"needs the (module|package) ",
        "give the image what the model needs: --pip PACKAGE, or --extras for XGBoost, LightGBM and ONNX",
    ),
    (
        r"unauthorized|authentication required|access .*denied|denied: ",
        "log in with the builder's own command (podman login REGISTRY), with an account that may do it",
    ),
    (
        r"initializing source|manifest unknown|failed to resolve|pinging container registry|image not known",
        "the base image cannot be had: --base names one that your registry has, with Python 3.11 or later and pip",
    ),
    (r"No module named (pip|venv)|python3: not found", "the base image needs Python 3.11 or later, with pip and venv"),
)


def reason(lines: Sequence[str]) -> str:
    """The lines that say why a builder failed, of the last that it wrote."""
    telling = [line.strip() for line in lines if not _NOISE.search(line)]
    found = [line for line in telling if _REASON.search(line)] or telling[-3:]
    return "; ".join(dict.fromkeys(found[-4:])) or "it says nothing"


def advice(lines: Sequence[str]) -> str | None:
    """What to do about it, None if that is not known."""
    text = "\n".join(lines)
    return next((what for pattern, what in _ADVICE if re.search(pattern, text)), None)
