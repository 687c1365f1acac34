"""KServe's runtimes: which one serves a model, what it speaks, how it is told what it serves; longshore's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec import KServeOptions, Release, Service
from longshore.spec.checks import check_choice, check_dns_label, check_image
from longshore.targets.base import MANAGED_BY, Manifest
from longshore.targets.kserve_huggingface import huggingface_arguments, huggingface_protocols
from longshore.targets.kserve_tensorflow import TENSORFLOW_RUNTIME, saved_model_arguments
from longshore.targets.kserve_torchserve import FORMAT as TORCHSERVE
from longshore.targets.kserve_torchserve import TORCHSERVE_FORMAT, is_packaged_archive, torchserve_arguments
from longshore.targets.kserve_versions import OLDEST_VERSION
from longshore.targets.pods import KSERVE_IMAGE, container_security, server_image

__all__ = [
    "DRAIN_SECONDS",
    "GROUP",
    "GRPC_PORT",
    "KNATIVE_TAG",
    "KSERVE_SERVER_RUNTIME",
    "LONGSHORE_RUNTIME",
    "PORT",
    "KnownRuntime",
    "arguments",
    "grpc_ports",
    "is_own",
    "options_of",
    "runtime_of",
    "serving_runtime",
    "spoken",
    "variables",
]

LONGSHORE_RUNTIME: Final = "longshore"
"""Name of the ClusterServingRuntime of ``manifests/kserve/runtime.yaml``."""

KSERVE_SERVER_RUNTIME: Final = "longshore-kserve"
"""Name of that with KServe's own model server, of ``manifests/kserve/runtime-kserve.yaml``."""

GROUP: Final = "serving.kserve.io"
PORT: Final = 8080
DRAIN_SECONDS: Final = 20
GRPC_PORT: Final = 9000

KNATIVE_TAG: Final = "latest"
"""What the host of the newest revision begins with, where it has an address of its own."""


@dataclass(frozen=True)
class KnownRuntime:
    """How a ServingRuntime is asked.

    Args:
        name: Its name.
        protocols: What it speaks, the usual one first.
        version: Version of the model format, where the runtime is not found without.
        ready: Path that answers 200 once the model can be asked, None where there is none over HTTP.
        since: KServe version that brought it.
        own: Whether it takes what longshore packages, with longshore's arguments.
        told: How its server is told the model's name, which is the InferenceService's unless something else is said:
            the argument or the variable; None where the model's files say it.
        format: What KServe calls the model's format, where that is something else.
    """

    name: str
    protocols: tuple[str, ...]
    version: str | None = None
    ready: str | None = "/v2/health/ready"
    since: tuple[int, int] = OLDEST_VERSION
    own: bool = False
    told: str | None = "--model_name"
    format: str | None = None


_OWN: Final = {
    name: KnownRuntime(name, ("v1", "v2", "grpc-v2"), own=True, told=None)
    for name in (LONGSHORE_RUNTIME, KSERVE_SERVER_RUNTIME)
}
# longshore's image in KServe's runtime: there is no wrapper, and TorchServe's gRPC is another one
_PACKAGED_TORCHSERVE: Final = KnownRuntime(
    "kserve-torchserve", ("v1", "v2"), "1", ready=None, told=None, format=TORCHSERVE_FORMAT
)
_OWN_FORMATS: Final = frozenset({"sklearn", "xgboost", "lightgbm", "onnx"})

# What KServe brings, by format: the runtime that loads the format's own files without code of the user. KServe's choice
# is by priority alone: it finds none for mlflow unless v2 is asked for, and takes another server for sklearn in v2.
_KSERVE_RUNTIMES: Final[Mapping[str, Sequence[KnownRuntime]]] = {
    "sklearn": (
        KnownRuntime("kserve-sklearnserver", ("v1", "v2"), "1"),
        KnownRuntime("kserve-mlserver", ("v2",), "1", told="MLSERVER_MODEL_NAME"),
    ),
    "xgboost": (
        KnownRuntime("kserve-xgbserver", ("v1", "v2"), "2"),
        KnownRuntime("kserve-mlserver", ("v2",), "2", told="MLSERVER_MODEL_NAME"),
    ),
    "lightgbm": (
        KnownRuntime("kserve-lgbserver", ("v1", "v2"), "4"),
        KnownRuntime("kserve-mlserver", ("v2",), "4", told="MLSERVER_MODEL_NAME"),
    ),
    "mlflow": (KnownRuntime("kserve-mlserver", ("v2",), "2", told="MLSERVER_MODEL_NAME"),),
    "pytorch": (KnownRuntime("kserve-torchserve", ("v1", "v2", "grpc-v2"), "1", ready=None, told=None),),
    TORCHSERVE: (
        KnownRuntime(
            "kserve-torchserve", ("v1", "v2", "grpc-v2"), "1", ready=None, told=None, format=TORCHSERVE_FORMAT
        ),
    ),
    "tensorflow": (KnownRuntime(TENSORFLOW_RUNTIME, ("v1", "grpc-v1"), "2", ready=None),),
    "tensorrt": (KnownRuntime("kserve-tritonserver", ("v2", "grpc-v2"), "8", told=None),),
    "onnx": (KnownRuntime("kserve-tritonserver", ("v2", "grpc-v2"), "1", told=None),),
    "triton": (KnownRuntime("kserve-tritonserver", ("v2", "grpc-v2"), "2", told=None),),
    "huggingface": (KnownRuntime("kserve-huggingfaceserver", ("v1", "v2"), "1"),),
    "pmml": (KnownRuntime("kserve-pmmlserver", ("v1", "v2"), "4"),),
    "paddle": (KnownRuntime("kserve-paddleserver", ("v1", "v2"), "2"),),
    "openvino": (KnownRuntime("kserve-openvino", ("v2", "grpc-v2"), since=(0, 17)),),
    "autogluon": (KnownRuntime("kserve-autogluonserver", ("v1", "v2"), since=(0, 20)),),
    "vllm": (KnownRuntime("kserve-vllmserver", ("v1", "v2"), since=(0, 20), told="--served-model-name"),),
}


def serving_runtime(
    namespace: str | None = None, *, name: str = LONGSHORE_RUNTIME, image: str | None = None
) -> Manifest:
    """A runtime that serves what longshore has packaged, for a cluster's administrator to install once.

    It is never chosen by KServe itself: what runs in a cluster already is left to its runtime.

    Args:
        namespace: For a ServingRuntime in this namespace; None is a ClusterServingRuntime.
        name: :data:`LONGSHORE_RUNTIME`, or :data:`KSERVE_SERVER_RUNTIME` for the same inside KServe's own model server.
        image: Container image of the server; None is longshore's.

    Raises:
        InvalidValue: If a name is not valid, or there is no such runtime.
    """
    check_choice("name", name, tuple(_OWN))
    kserve = name == KSERVE_SERVER_RUNTIME
    image = image or (KSERVE_IMAGE if kserve else server_image("fastapi"))
    metadata: dict[str, Any] = {"name": name, "labels": dict(MANAGED_BY)}
    if namespace is not None:
        check_dns_label("namespace", namespace)
        metadata["namespace"] = namespace
    check_image("image", image)
    listens = [f"--http_port={PORT}"] if kserve else ["--framework=fastapi", "--host=0.0.0.0", f"--port={PORT}"]
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "ClusterServingRuntime" if namespace is None else "ServingRuntime",
        "metadata": metadata,
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(PORT), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{"name": name, "autoSelect": False} for name in sorted(_OWN_FORMATS)],
            "protocolVersions": list(_OWN[name].protocols),
            "containers": [
                {
                    "name": "kserve-container",
                    "image": image,
                    "args": ["--model=/mnt/models", *listens, f"--drain-seconds={DRAIN_SECONDS}"],
                    "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
                    "securityContext": {
                        **container_security(),
                        "readOnlyRootFilesystem": True,
                        "runAsNonRoot": True,
                    },
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }


def options_of(service: Service) -> KServeOptions:
    """What a service says of KServe, or else KServe's defaults."""
    return service.kserve or KServeOptions()


def runtime_of(release: Release) -> KnownRuntime | None:
    """The runtime that serves the model; None is one of the user's own.

    Raises:
        InvalidValue: If nothing serves the format, or nothing in the protocol that is asked for.
    """
    model, options = release.model, options_of(release.service)
    if options.runtime is None and model.digest is not None and model.format in _OWN_FORMATS:
        return _OWN[LONGSHORE_RUNTIME]
    if options.runtime in _OWN:
        return _OWN[options.runtime]
    if is_packaged_archive(release):
        return _PACKAGED_TORCHSERVE
    known = _KSERVE_RUNTIMES.get(model.format, ())
    if options.runtime is not None:
        return next((runtime for runtime in known if runtime.name == options.runtime), None)
    fits = [runtime for runtime in known if options.protocol in (None, *runtime.protocols)]
    if not known:
        raise InvalidValue(
            "ModelSource.format",
            model.format,
            f"KServe brings a runtime for {', '.join(_KSERVE_RUNTIMES)}: name a runtime of your own",
        )
    if not fits:
        spoken = sorted({protocol for runtime in known for protocol in runtime.protocols})
        raise InvalidValue(
            "KServeOptions.protocol", options.protocol, f"for {model.format}, KServe speaks {', '.join(spoken)}"
        )
    return fits[0]


def is_own(runtime: KnownRuntime | None) -> bool:
    """Whether a runtime takes what longshore packages."""
    return runtime is not None and runtime.own


def arguments(release: Release, runtime: KnownRuntime | None) -> list[str]:
    """What is told to the server on its command line."""
    if is_own(runtime):
        return _own_arguments(release, kserve=runtime is _OWN[KSERVE_SERVER_RUNTIME])
    told = _told(release, runtime)
    named = [f"{told}={release.service.name}"] if told.startswith("--") else []
    return [
        *named,
        *huggingface_arguments(release),
        *torchserve_arguments(release),
        *saved_model_arguments(release),
    ]


def variables(release: Release, runtime: KnownRuntime | None) -> dict[str, str]:
    """What is told to the server in its environment."""
    told = _told(release, runtime)
    return {told: release.service.name} if told and not told.startswith("--") else {}


def spoken(release: Release, runtime: KnownRuntime | None) -> tuple[str, ...]:
    """What is spoken at the endpoint."""
    options = options_of(release.service)
    if others := huggingface_protocols(release):
        return others
    if runtime is None:
        return (options.protocol or "v1",)
    if runtime.name == TENSORFLOW_RUNTIME:
        # its V1 is TensorFlow Serving's own REST, in which the model tells what it takes
        return ("tensorflow", *runtime.protocols)
    if not runtime.own:
        return runtime.protocols
    if options.protocol != "grpc-v2":
        return tuple(protocol for protocol in runtime.protocols if protocol != "grpc-v2")
    return runtime.protocols if options.mode == "Standard" else ("grpc-v2",)


def grpc_ports(options: KServeOptions) -> list[dict[str, Any]]:
    """The ports of longshore's server where it speaks gRPC.

    The runtime declares none, since what it declares could not be taken away here. KServe's Service in Standard mode
    has all of the container's ports, the first one as 80, and marks one named h2c as HTTP/2 for gateways: REST stays
    where it is and gRPC comes beside it. Knative has one port, and its name says what is spoken there.
    """
    grpc = {"containerPort": GRPC_PORT, "name": "h2c", "protocol": "TCP"}
    if options.mode == "Knative":
        return [grpc]
    return [{"containerPort": PORT, "name": "http1", "protocol": "TCP"}, grpc]


def _told(release: Release, runtime: KnownRuntime | None) -> str:
    """How the server is told the service's name, empty where it has it: KServe tells it the object's."""
    return runtime.told or "" if runtime is not None and release.lane is not None else ""


def _own_arguments(release: Release, *, kserve: bool) -> list[str]:
    model = release.model
    given: dict[str, Any] = {
        "--name": model.name,
        "--revision": release.revision,
        "--digest": model.digest,
        "--model-version": model.version,
    }
    if options_of(release.service).protocol == "grpc-v2":
        given["--grpc_port" if kserve else "--grpc-port"] = GRPC_PORT
    elif kserve:
        # KServe's server speaks it unless it is told not to
        given["--enable_grpc"] = "false"
    return [f"{name}={value}" for name, value in given.items() if value is not None]
