"""SavedModels that longshore has packaged, in KServe's runtime for TensorFlow Serving.

The server wants a folder with a folder for each version, and a package is that of one version. KServe can fetch it to
where the server looks for it (``storageUris``, since 0.16), so that no other version comes along.

Sources: github.com/kserve (config/runtimes/kserve-tensorflow-serving.yaml, pkg/apis/serving/v1beta1,
pkg/webhook/admission/pod/storage_initializer_injector.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import Release
from longshore.targets.kserve_versions import dotted

__all__ = [
    "TENSORFLOW_RUNTIME",
    "check_saved_model",
    "is_packaged_saved_model",
    "saved_model_arguments",
    "saved_model_container",
    "saved_model_storage",
]

TENSORFLOW_RUNTIME: Final = "kserve-tensorflow-serving"

_SINCE: Final = (0, 16)
_PLACE: Final = "/mnt/models"
_PORT: Final = 8080


def is_packaged_saved_model(release: Release) -> bool:
    """Whether the model is one that longshore has packaged, and KServe's runtime is to serve it."""
    kserve = release.service.kserve
    runtime = None if kserve is None else kserve.runtime
    model = release.model
    return model.format == "tensorflow" and model.digest is not None and runtime in (None, TENSORFLOW_RUNTIME)


def check_saved_model(release: Release, version: tuple[int, int]) -> None:
    """Refuse what KServe cannot fetch to where the server looks for it.

    Raises:
        InvalidValue: If it cannot.
    """
    if not is_packaged_saved_model(release):
        return
    model = release.model
    if not model.version or str(int(model.version)) != model.version:
        raise InvalidValue(
            "ModelSource.version", model.version, "TensorFlow Serving tells versions apart by their number: register it"
        )
    if version < _SINCE:
        raise InvalidValue(
            "ModelSource.uri",
            model.uri,
            f"KServe fetches a single version since {dotted(_SINCE)}: give an older one the folder of all "
            "versions, without a digest",
        )
    if model.uri.startswith("pvc://"):
        raise InvalidValue(
            "ModelSource.uri",
            model.uri,
            "KServe mounts a claim as a whole there: give it the folder of all versions, without a digest, or a store",
        )


def saved_model_storage(release: Release) -> dict[str, Any]:
    """Fields of the predictor that say where the model is; none for others."""
    if not is_packaged_saved_model(release):
        return {}
    model = release.model
    return {"storageUris": [{"uri": model.uri, "mountPath": f"{_PLACE}/{model.version}"}]}


def saved_model_container(release: Release) -> dict[str, Any]:
    """Fields of the model's container that count in place of the runtime's; none for others."""
    if not is_packaged_saved_model(release):
        return {}
    # what only a version answers that can be asked
    path = f"/v1/models/{release.service.name}/versions/{release.model.version}/metadata"
    return {"readinessProbe": {"httpGet": {"path": path, "port": _PORT}, "periodSeconds": 1}}


def saved_model_arguments(release: Release) -> Sequence[str]:
    """What the server is told beyond what KServe's runtime tells it."""
    # what cannot be loaded is told at once: the files do not change
    return ["--max_num_load_retries=0"] if is_packaged_saved_model(release) else ()
