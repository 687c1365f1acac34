"""The platform ``torchserve``: TorchServe in pods of a Deployment, behind a gate, without a serving platform.

TorchServe is no longer developed and gets no fixes of security. It is for those who have it already: the same package
is served by longshore's own server at the same address if ``TorchServeOptions.instead`` says so.

In a pod, what TorchServe is to load is fetched and checked first, then TorchServe listens on loopback alone, its
management API too, and an Nginx is what the network sees: TorchServe makes its tokens itself at each start and takes
none of a Secret. The gate is the pod's container and TorchServe beside it a sidecar, which Kubernetes (1.29 and later)
starts before and ends after it: no request is cut off.

Source: github.com/pytorch/serve (docs/configuration.md, docs/token_authorization_api.md; v0.12.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from longshore.errors import InvalidValue
from longshore.spec import Endpoint, Release, Service, TorchServeOptions
from longshore.spec.image import image_name
from longshore.targets.availability import spread
from longshore.targets.base import REVISION_LABEL, SERVICE_LABEL, Manifest, Ref
from longshore.targets.deployed import DeploymentTarget, Port, check_remote
from longshore.targets.gate import (
    GATE_ANNOTATION,
    GATE_GRPC,
    GATE_HTTP,
    GATE_METRICS,
    Behind,
    gate_configuration,
    gate_container,
    gate_volumes,
)
from longshore.targets.nginx import NGINX_IMAGE
from longshore.targets.pods import (
    LINGER_SECONDS,
    container_resources,
    container_security,
    environment,
    pod_security,
    scheduling,
    secret_refs,
)

__all__ = ["OFFICIAL_IMAGE", "WARNING", "TorchServeTarget", "as_deployed", "server_arguments"]

WARNING: Final = (
    "TorchServe is no longer developed and gets no fixes of security: the same package is served by longshore's own "
    "server, at the same address, with TorchServeOptions(instead='longshore'), or moves on to KServe as ONNX"
)

OFFICIAL_IMAGE: Final = "docker.io/pytorch/torchserve:0.12.0-cpu"
"""TorchServe's last image. Its Python is 3.9, too old for longshore: it is for archives with handlers of others."""

_IMAGE: Final = "torch"
_TLS_PORT: Final = 443
_DRAIN_SECONDS: Final = 20
_STOP_SECONDS: Final = 22
_INFERENCE, _MANAGEMENT, _METRICS, _HEALTH, _GRPC, _GRPC_MANAGEMENT = 8085, 8086, 8083, 8084, 7070, 7071
_MODELS: Final = "/mnt/models"
_PACKAGE: Final = f"{_MODELS}/package"
_READY: Final = "/tmp/ready"  # noqa: S108 - the pod's own
_SOURCE: Final = "/mnt/source"
_SECRET: Final = "/mnt/tokens"  # noqa: S105 - a place
_TOKENS: Final = "/mnt/gate-tokens"

_OWN_PROTOCOLS: Final[Mapping[str | None, tuple[str, ...]]] = {
    None: ("torchserve", "grpc-torchserve"),
    "longshore": ("grpc-v2",),
}

_SETTINGS: Final[Mapping[str, object]] = {
    "inference_address": f"http://127.0.0.1:{_INFERENCE}",
    "management_address": f"http://127.0.0.1:{_MANAGEMENT}",
    "metrics_address": f"http://127.0.0.1:{_METRICS}",
    "grpc_inference_address": "127.0.0.1",
    "grpc_inference_port": _GRPC,
    "grpc_management_address": "127.0.0.1",
    "grpc_management_port": _GRPC_MANAGEMENT,
    "model_store": f"{_PACKAGE}/model-store",
    "metrics_mode": "prometheus",
    "enable_metrics_api": "true",
    # the gate asks for tokens, and nobody else is on this loopback
    "disable_token_authorization": "true",
    "enable_model_api": "false",
}
"""What counts in a pod, whatever the package's configuration says."""


class TorchServeTarget(DeploymentTarget):
    """TorchServe and a gate in each pod; see :class:`~longshore.targets.deployed.DeploymentTarget`."""

    platform: ClassVar[str] = "torchserve"
    metrics: ClassVar[tuple[str, str]] = ("metrics", "/metrics")

    def ports(self, service: Service) -> Sequence[Port]:  # noqa: ARG002
        """The gate's."""
        return (
            Port("http", GATE_HTTP, 80),
            Port("grpc", GATE_GRPC, GATE_GRPC),
            Port("metrics", GATE_METRICS, GATE_METRICS),
        )

    def monitored(self, service: Service) -> bool:
        """As the service says."""
        return _options(service).pod_monitor

    def needs(self, release: Release) -> Mapping[str, Ref]:
        """The Secrets of its environment, of the tokens and of the certificate."""
        options = _options(release.service)
        named = {
            "TorchServeOptions.token_secret": options.token_secret,
            "TorchServeOptions.tls.secret": None if options.tls is None else options.tls.secret,
        }
        return secret_refs(release.service, named)

    def endpoint(self, release: Release, observed: Sequence[Manifest]) -> Endpoint:  # noqa: ARG002
        """The Service's name in the cluster's DNS."""
        service, options = release.service, _options(release.service)
        tls = options.tls
        protocols = ("v1", "v2", *_OWN_PROTOCOLS[options.instead])
        if release.lane is not None:
            # routers share out HTTP
            protocols = tuple(name for name in protocols if not name.startswith("grpc"))
        endpoint = Endpoint(
            name=service.name,
            url=self.url(service),
            grpc_url=f"http://{service.name}.{service.namespace}.svc:{GATE_GRPC}",
            model=release.model.name,
            revision=release.revision,
            protocols=protocols,
        )
        if tls is None:
            return endpoint
        # the whole name is whose certificate is asked for
        host = f"{service.name}.{service.namespace}.svc.cluster.local"
        port = "" if service.port in (None, _TLS_PORT) else f":{service.port}"
        return replace(
            endpoint,
            url=f"https://{host}{port}",
            grpc_url=f"https://{host}:{GATE_GRPC}",
            headers={"Host": tls.host or host},
            ca=tls.ca,
        )

    def check(self, release: Release) -> None:
        """Refuse what this platform does not have, and what is open by omission."""
        options, model = _options(release.service), release.model
        if release.traffic.percent != 100:
            raise InvalidValue(
                "Traffic.percent",
                release.traffic.percent,
                "the platform 'torchserve' has no split of its own: give the service a router, or use 100",
            )
        check_remote(model)
        if model.format != "torchserve":
            raise InvalidValue(
                "ModelSource.format",
                model.format,
                "package_torchserve makes what TorchServe loads",
            )
        if options.token_secret is None and not options.anonymous:
            raise InvalidValue(
                "TorchServeOptions.token_secret",
                None,
                "name the Secret with the tokens of clients, or say anonymous=True",
            )
        if release.lane is None and options.tls is None and not options.plaintext:
            raise InvalidValue(
                "TorchServeOptions.tls", None, "name the Secret of a certificate (tls), or say plaintext=True"
            )

    def notes(self, release: Release) -> dict[str, Any]:
        """The gate's configuration."""
        options = _options(release.service)
        configuration = gate_configuration(
            _behind(options),
            revision=release.revision,
            asks_tokens=options.token_secret is not None,
            tls=options.tls,
            port=release.service.port,
        )
        return {"annotations": {GATE_ANNOTATION: configuration}}

    def pod(self, release: Release) -> dict[str, Any]:
        """TorchServe, and the gate in front of it."""
        options = _options(release.service)
        asks, tls = options.token_secret is not None, options.tls
        volumes, setup = _setup(release, options)
        return {
            "initContainers": [setup, _server(release, options)],
            "containers": [gate_container(image=options.gate_image, asks_tokens=asks, tls=tls)],
            "volumes": [*volumes, *gate_volumes(asks_tokens=asks, tls=tls)],
            "automountServiceAccountToken": False,
            # variables named after other services would be taken for settings
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": LINGER_SECONDS + _DRAIN_SECONDS + _STOP_SECONDS,
            "securityContext": pod_security(),
            "topologySpreadConstraints": spread({SERVICE_LABEL: release.object_name, REVISION_LABEL: release.revision}),
            **scheduling(release.service),
        }

    def _service_ports(self, service: Service) -> list[dict[str, Any]]:
        """HTTP, or HTTPS, and gRPC; metrics are asked of each pod."""
        first, grpc, _ = super()._service_ports(service)
        if _options(service).tls is not None:
            first |= {"name": "https", "port": service.port or _TLS_PORT}
        return [first, grpc]


def as_deployed(service: Service, *, packaged: bool) -> Service:
    """The service with the images that it has today, so that a rollback finds them again.

    Args:
        service: The service.
        packaged: Whether longshore made the package, whose handler then takes an image with longshore.
    """
    options = _options(service)
    ours = image_name(_IMAGE)
    images = replace(
        options,
        setup_image=options.setup_image or ours,
        gate_image=options.gate_image or NGINX_IMAGE,
    )
    return replace(service, image=service.image or (ours if packaged else OFFICIAL_IMAGE), torchserve=images)


def server_arguments(*, ready: str, words: str | None, settings: Mapping[str, object] | None = None) -> list[str]:
    """The arguments of ``torchserve_process`` in a pod.

    Args:
        ready: File that it writes once all models answer.
        words: File for the reason of a failure.
        settings: Properties that count in place of those that count in a pod.
    """
    changes = {**_SETTINGS, **(settings or {})}
    return [
        f"--ready-file={ready}",
        *([] if words is None else [f"--words-file={words}"]),
        *(f"--set={key}={value}" for key, value in changes.items()),
    ]


def _options(service: Service) -> TorchServeOptions:
    return service.torchserve or TorchServeOptions()


def _behind(options: TorchServeOptions) -> Behind:
    own = options.instead is None
    return Behind(
        http=f"127.0.0.1:{_INFERENCE}",
        grpc=f"127.0.0.1:{_GRPC}",
        metrics=f"127.0.0.1:{_METRICS if own else _INFERENCE}",
        health=f"127.0.0.1:{_HEALTH}/" if own else f"127.0.0.1:{_INFERENCE}/v2/health/ready",
        paths="predictions|explanations|ping|v1|v2" if own else "v1|v2",
    )


def _setup(release: Release, options: TorchServeOptions) -> tuple[list[Manifest], Manifest]:
    """What brings the package, and the volumes of it and of TorchServe."""
    service, model, where = release.service, release.model, release.model.uri
    volumes: list[Manifest] = [{"name": "models", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}]
    mounts: list[Manifest] = [
        {"name": "models", "mountPath": _MODELS},
        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
    ]
    if where.startswith("pvc://"):
        claim, _, path = where.removeprefix("pvc://").partition("/")
        volumes.append({"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": "source", "mountPath": _SOURCE, "readOnly": True})
        where = f"{_SOURCE}/{path}".rstrip("/")
    arguments = [f"--model={where}", f"--place={_MODELS}"]
    if model.digest is not None:
        arguments.append(f"--digest={model.digest}")
    if options.token_secret is not None:
        arguments += [f"--tokens={_SECRET}", f"--gate={_TOKENS}"]
        volumes.append({"name": "tokens", "secret": {"secretName": options.token_secret, "defaultMode": 0o440}})
        mounts.append({"name": "tokens", "mountPath": _SECRET, "readOnly": True})
        mounts.append({"name": "gate-tokens", "mountPath": _TOKENS})
    container = {
        "name": "setup",
        "image": options.setup_image or image_name(_IMAGE),
        "command": ["python", "-m", "longshore.serving.torchserve_setup"],
        "args": arguments,
        **environment(service.env, service.secrets),
        "resources": container_resources(replace(service.resources, gpu=0)),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }
    return volumes, container


def _server(release: Release, options: TorchServeOptions) -> Manifest:
    service, model = release.service, release.model
    image = service.image
    if options.instead is None:
        command = ["python", f"{_MODELS}/torchserve_process.py"]
        arguments = [f"--ts-config={_PACKAGE}/config/config.properties"]
        arguments += [f"--health-port={_HEALTH}", *server_arguments(ready=_READY, words="/dev/termination-log")]
        started: Manifest = {"exec": {"command": ["test", "-e", _READY]}}
        alive: Manifest = {}
    else:
        # one with TorchServe need not have longshore
        image = options.setup_image
        command = ["python", "-m", "longshore.serving"]
        given = {
            "--model": _PACKAGE,
            "--framework": "fastapi",
            "--name": model.name,
            "--revision": release.revision,
            "--digest": model.digest,
            "--model-version": model.version,
            "--host": "127.0.0.1",
            "--port": _INFERENCE,
            "--grpc-port": _GRPC,
            "--drain-seconds": _DRAIN_SECONDS,
        }
        arguments = [f"{name}={value}" for name, value in given.items() if value is not None]
        health = ["python", "-m", "longshore.serving.health", str(_INFERENCE), "/v2/health/ready"]
        started = {"exec": {"command": health}, "timeoutSeconds": 10}
        alive = {"livenessProbe": {**started, "periodSeconds": 30, "failureThreshold": 3}}
    return {
        "name": "server",
        "image": image or image_name(_IMAGE),
        "command": command,
        "args": arguments,
        **environment(service.env, service.secrets),
        "resources": container_resources(service.resources),
        # a sidecar: it is there before the gate begins, and until it has ended
        "restartPolicy": "Always",
        # how long loading takes is the release's time-out to judge
        "startupProbe": {**started, "periodSeconds": 1, "failureThreshold": 3600},
        **alive,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "models", "mountPath": _MODELS, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
        "securityContext": {**container_security(), "readOnlyRootFilesystem": True},
    }
