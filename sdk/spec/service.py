"""A service, and a model behind it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from longshore.errors import InvalidValue
from longshore.spec.checks import (
    check_choice,
    check_dns_label,
    check_env,
    check_image,
    check_labels,
    check_names,
    check_range,
    check_service_name,
    check_subdomain,
    freeze,
)
from longshore.spec.kserve import KServeOptions
from longshore.spec.plain import to_plain
from longshore.spec.router import Router
from longshore.spec.seldon import SeldonOptions
from longshore.spec.seldon_v2 import SeldonV2Options
from longshore.spec.tfserving import TensorFlowServingOptions
from longshore.spec.torchserve import TorchServeOptions
from longshore.spec.values import ModelSource, Resources, Scaling, Toleration, Traffic

__all__ = ["FRAMEWORKS", "Release", "Service"]

FRAMEWORKS: Final = ("fastapi", "flask", "django")

_PLATFORM_OPTIONS: Final = ("kserve", "seldon", "seldon_v2", "torchserve", "tfserving")


@dataclass(frozen=True, kw_only=True)
class Service:
    """A named endpoint that outlives the models behind it.

    Args:
        name: RFC 1035 label of at most 53 characters (platforms append suffixes of their own).
        namespace: Kubernetes namespace; the local runtime ignores it.
        framework: Web framework of the ``local`` and ``rest`` targets.
        port: Port that clients use; None lets the platform choose.
        resources: Compute of one replica.
        scaling: Number of replicas.
        service_account: Kubernetes service account of the serving pods.
        labels: Added to every object.
        annotations: Added to every object.
        env: Environment of the serving process. Secrets do not belong here.
        secrets: Names of Kubernetes Secrets in the namespace whose keys become environment variables of the serving
            process, such as the credentials of the model's storage.
        image: Container image of the server; None is the platform's own.
        node_selector: Labels of the nodes that pods may run on.
        tolerations: Taints that they may run on in spite of.
        router: Shares requests out to revisions that run beside each other; without one, a platform has the split
            that it brings itself.
        kserve: What only KServe is told; other platforms ignore it.
        seldon: What only Seldon Core 1 is told.
        seldon_v2: What only Seldon Core 2 is told.
        torchserve: What only TorchServe on Kubernetes is told.
        tfserving: What only TensorFlow Serving is told.
    """

    name: str
    namespace: str = "default"
    framework: str = "fastapi"
    port: int | None = None
    resources: Resources = field(default_factory=Resources)
    scaling: Scaling = field(default_factory=Scaling)
    service_account: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    image: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Toleration] = ()
    router: Router | None = None
    kserve: KServeOptions | None = None
    seldon: SeldonOptions | None = None
    seldon_v2: SeldonV2Options | None = None
    torchserve: TorchServeOptions | None = None
    tfserving: TensorFlowServingOptions | None = None

    def __post_init__(self) -> None:
        check_service_name("Service.name", self.name, max_length=53)
        check_dns_label("Service.namespace", self.namespace)
        check_choice("Service.framework", self.framework, FRAMEWORKS)
        if self.port is not None:
            check_range("Service.port", self.port, 1, 65535)
        if self.service_account is not None:
            check_subdomain("Service.service_account", self.service_account)
        check_labels("Service.labels", self.labels)
        check_labels("Service.annotations", self.annotations, values=False)
        check_labels("Service.node_selector", self.node_selector)
        check_env(self, "env")
        check_names(self, "secrets")
        self._check_tls()
        if self.image is not None:
            check_image("Service.image", self.image)
        object.__setattr__(self, "tolerations", tuple(self.tolerations))
        for name in ("labels", "annotations", "node_selector"):
            freeze(self, name)

    def _check_tls(self) -> None:
        """Where a router is in front, clients come to it and not to TorchServe's gate."""
        if self.torchserve is None or self.router is None:
            return
        if self.torchserve.tls is not None:
            raise InvalidValue(
                "TorchServeOptions.tls", self.torchserve.tls.secret, "clients come by the router: Router.tls"
            )
        if self.router.kind == "nginx" and self.router.tls is None and not self.torchserve.plaintext:
            raise InvalidValue(
                "Router.tls", None, "name the Secret of a certificate, or say TorchServeOptions(plaintext=True)"
            )


@dataclass(frozen=True, kw_only=True)
class Release:
    """One model behind one service: what an engine brings up and, if need be, takes back.

    Args:
        service: The endpoint.
        model: The model that it shall serve.
        traffic: The share of requests that this revision shall answer.
        lane: Name of the revision's own objects, where each revision has some; None: those of the service.
        beside: The releases that answer the rest; an engine sets them to what serves. Platforms that hold all
            revisions of a service in one object need more of them than their names.
    """

    service: Service
    model: ModelSource
    traffic: Traffic = field(default_factory=Traffic)
    lane: str | None = None
    beside: Sequence[Release] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "beside", tuple(self.beside))
        if not self.beside:
            return
        revisions = [one.revision for one in self.beside]
        if self.traffic.percent == 100:
            raise InvalidValue("Release.beside", revisions, "at 100 percent there is no rest")
        if len({self.revision, *revisions}) <= len(revisions):
            raise InvalidValue("Release.beside", revisions, f"beside {self.revision}, each revision comes once")

    def next_to(self, previous: Release | None) -> Release:
        """The release with what answers the requests that it does not.

        Args:
            previous: What serves now, None if nothing does.

        Raises:
            InvalidValue: If ``Traffic.rest`` names a revision that does not run.
        """
        traffic = self.traffic
        running = {} if previous is None else {one.revision: one for one in (*previous.beside, previous)}
        names = {} if previous is None else {**running, **previous.traffic.others}
        for revision in traffic.rest:
            if revision not in names or revision == self.revision:
                runs = ", ".join(name for name in names if name != self.revision)
                raise InvalidValue("Traffic.rest key", revision, f"beside this one runs {runs or 'nothing'}")
        if previous is None or traffic.percent == 100:
            return self
        stable = (previous.traffic.base, previous.revision)
        base = next((revision for revision in stable if revision not in (None, self.revision)), None)
        if traffic.rest:
            base = max(traffic.rest, key=lambda revision: traffic.rest[revision])
        kept = [running[one] for one in (traffic.rest or (base,)) if one in running]
        beside = [replace(one, traffic=Traffic(), beside=()) for one in kept]
        return replace(self, traffic=replace(traffic, base=base), beside=beside)

    @property
    def object_name(self) -> str:
        """Name of the platform's objects."""
        return self.lane or self.service.name

    @functools.cached_property
    def revision(self) -> str:
        """Name of what runs: equal content gives an equal name, and any change that restarts a server a new one.

        Traffic and the number of replicas change no process, so they are left out.
        """
        content: dict[str, Any] = {
            "model": asdict(self.model),
            "framework": self.service.framework,
            "env": dict(self.service.env),
            "resources": asdict(self.service.resources),
        }
        # added only where they are used, so that the names of what runs already stay
        for name in ("secrets", "image", "node_selector", "tolerations", *_PLATFORM_OPTIONS):
            if value := getattr(self.service, name):
                content[name] = to_plain(value)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self.service.name}-{digest[:8]}"
