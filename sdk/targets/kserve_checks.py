"""What KServe cannot do with a release, told before anything is applied."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from longshore.errors import InvalidValue
from longshore.spec import KServeOptions, Release
from longshore.targets.kserve_huggingface import check_huggingface
from longshore.targets.kserve_runtimes import KNATIVE_TAG, is_own, options_of, runtime_of
from longshore.targets.kserve_tensorflow import check_saved_model
from longshore.targets.kserve_versions import OLDEST_VERSION, too_old

__all__ = ["check_release"]

_HOST_LABEL: Final = 63
# of what Knative makes of the name: NAME-transformer-00001-deployment is cut, these are not
_KNATIVE_NAME: Final = _HOST_LABEL - max(len("-transformer-00001"), len(f"{KNATIVE_TAG}--transformer"))
_SINCE: Final = {"oci+native": (0, 20)}


def check_release(release: Release, version: tuple[int, int]) -> None:
    """Refuse a release that asks for what KServe, or this version of it, does not have.

    Raises:
        InvalidValue: Naming what it asks for.
    """
    options, scaling = options_of(release.service), release.service.scaling
    if options.mode == "Standard":
        if release.traffic.percent != 100:
            raise InvalidValue(
                "Traffic.percent",
                release.traffic.percent,
                "KServe's Standard mode has no split: give the service a router, or use 100",
            )
        if scaling.min_replicas < 1:
            raise InvalidValue("Scaling.min_replicas", 0, "only KServe's Knative mode scales to zero")
        if scaling.metric in ("concurrency", "rps"):
            raise InvalidValue("Scaling.metric", scaling.metric, "only KServe's Knative mode scales by requests")
    elif release.traffic.mirror_percent:
        raise InvalidValue(
            "Traffic.mirror_percent",
            release.traffic.mirror_percent,
            "Knative copies no requests: use the mode Standard",
        )
    elif scaling.metric == "memory":
        raise InvalidValue("Scaling.metric", scaling.metric, "Knative scales by concurrency, rps or cpu")
    _check_name(release, options)
    runtime = runtime_of(release)
    if runtime is not None and runtime.since > version:
        raise InvalidValue("KServeOptions.runtime", runtime.name, too_old(version, runtime.since))
    if runtime is not None and options.protocol not in (None, *runtime.protocols):
        raise InvalidValue(
            "KServeOptions.protocol",
            options.protocol,
            f"the runtime {runtime.name} speaks {', '.join(runtime.protocols)}",
        )
    if is_own(runtime) and options.mode == "Knative" and options.protocol == "grpc-v2":
        for name in ("logger", "batcher"):
            if getattr(options, name) is not None:
                raise InvalidValue(
                    f"KServeOptions.{name}",
                    getattr(options, name),
                    "KServe's reads HTTP, and in Knative mode the predictor has its gRPC port only",
                )
    _check_uri(release.model.uri, version)
    check_huggingface(release, version)
    check_saved_model(release, version)


def _check_uri(uri: str, version: tuple[int, int]) -> None:
    scheme, found, rest = uri.partition("://")
    if not found or scheme == "file":
        raise InvalidValue(
            "ModelSource.uri",
            uri,
            "pods cannot read a path of this machine: package the model into a store that they can reach, such as "
            "s3:// (package_model with repository=URI), or give pvc://CLAIM/PATH",
        )
    if version < _SINCE.get(scheme, OLDEST_VERSION):
        raise InvalidValue("ModelSource.uri", uri, too_old(version, _SINCE[scheme]))
    if scheme == "hf" and not re.fullmatch(r"[^/:]+/[^/:]+(:[^/]+)?", rest):
        raise InvalidValue("ModelSource.uri", uri, "write hf://OWNER/MODEL or hf://OWNER/MODEL:REVISION")
    if scheme == "pvc" and not urlsplit(uri).netloc:
        raise InvalidValue("ModelSource.uri", uri, "write pvc://CLAIM/PATH")


def _check_name(release: Release, options: KServeOptions) -> None:
    """Refuse names that become too long with what KServe and Knative append."""
    service = release.service
    longest = _KNATIVE_NAME if options.mode == "Knative" else _HOST_LABEL - len("-transformer")
    longest -= len(release.object_name) - len(service.name)
    if len(service.name) > longest:
        raise InvalidValue(
            "Service.name", service.name, f"use at most {longest} characters: KServe appends to it (RFC 1035 label)"
        )
    host = f"{release.object_name}-transformer-{service.namespace}"
    if len(host) > _HOST_LABEL:
        raise InvalidValue(
            "Service.name",
            service.name,
            f"KServe makes the host name {host} of it, which has {len(host)} characters: {_HOST_LABEL} is the most",
        )
