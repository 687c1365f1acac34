"""A language model on vLLM, as KServe's LLMInferenceService."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from longshore.errors import InvalidValue
from longshore.spec.checks import check_dns_label, check_names, check_range, check_subdomain, check_uri
from longshore.spec.digest import revision_name
from longshore.spec.service import Service
from longshore.spec.values import Resources, Scaling, Traffic

__all__ = ["LLMPrefill", "LLMRouter", "LLMService", "Parallelism"]

_MODEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)*")


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """How a model is spread over GPUs; None leaves it at one.

    Args:
        tensor: GPUs that every layer is spread over.
        pipeline: Nodes that the layers are spread over; not together with ``data``.
        data: Copies of the model in all, given together with ``data_local``.
        data_local: Copies on one node.
        expert: Spread the experts of a mixture over the copies.
    """

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    data_local: int | None = None
    expert: bool = False

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline", "data", "data_local"):
            if (value := getattr(self, name)) is not None:
                check_range(f"Parallelism.{name}", value, 1)
        for one, other in (("data", "data_local"), ("data_local", "data")):
            if getattr(self, one) is None and getattr(self, other) is not None:
                raise InvalidValue(f"Parallelism.{one}", None, f"give it together with {other}")
        if self.pipeline is not None and self.data is not None:
            raise InvalidValue("Parallelism.pipeline", self.pipeline, "not together with data: give one of them")
        if self.data is not None and self.data_local is not None and self.data % self.data_local:
            raise InvalidValue("Parallelism.data", self.data, f"use a multiple of data_local ({self.data_local})")

    @property
    def nodes(self) -> int:
        """Pods that make up one replica."""
        if self.data is not None and self.data_local is not None:
            return self.data // self.data_local
        return self.pipeline or 1


@dataclass(frozen=True, kw_only=True)
class LLMRouter:
    """Brings requests to the replicas through the Gateway API.

    Args:
        gateways: Gateways in place of KServe's own, as ``NAME`` in the service's namespace or ``NAMESPACE/NAME``.
        routes: Names of HTTPRoutes of one's own, in place of the one that KServe makes.
        scheduler: Choose the replica by its load and its cache, with an InferencePool.
    """

    gateways: Sequence[str] = ()
    routes: Sequence[str] = ()
    scheduler: bool = True

    def __post_init__(self) -> None:
        check_names(self, "routes")
        if isinstance(self.gateways, str):
            raise InvalidValue("LLMRouter.gateways", self.gateways, "use a list of names")
        object.__setattr__(self, "gateways", tuple(self.gateways))
        for value in self.gateways:
            namespace, _, name = value.rpartition("/")
            check_subdomain("LLMRouter.gateways", name)
            if namespace:
                check_dns_label("LLMRouter.gateways", namespace)


@dataclass(frozen=True, kw_only=True)
class LLMPrefill:
    """Pods of their own that read prompts, so that those that write answers are not held up.

    Args:
        replicas: Their number.
        resources: Compute of one.
        parallelism: How the model is spread there.
    """

    replicas: int = 1
    resources: Resources = field(default_factory=Resources)
    parallelism: Parallelism = field(default_factory=Parallelism)

    def __post_init__(self) -> None:
        check_range("LLMPrefill.replicas", self.replicas, 1)


@dataclass(frozen=True, kw_only=True)
class LLMService:
    """A language model behind an endpoint, for the engine what a :class:`~longshore.spec.Release` is for other models.

    Args:
        service: The endpoint: name, namespace, number of replicas, and of one replica resources, place, environment and
            image.
        uri: Where the model lies: ``hf://OWNER/MODEL``, ``s3://``, ``pvc://CLAIM/PATH``, ``oci://``.
        model: Name of the model in requests; None is the service's name.
        args: Arguments for vLLM beyond KServe's own.
        parallelism: How the model is spread over GPUs and nodes.
        router: How requests get there; None brings them to the Service in the cluster only.
        prefill: Pods that read prompts; None has all pods do everything.
        base_refs: Names of LLMInferenceServiceConfigs that this one is laid over.
    """

    service: Service
    uri: str
    model: str | None = None
    args: Sequence[str] = ()
    parallelism: Parallelism = field(default_factory=Parallelism)
    router: LLMRouter | None = None
    prefill: LLMPrefill | None = None
    base_refs: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_uri("LLMService.uri", self.uri)
        if self.model is not None and not (isinstance(self.model, str) and _MODEL.fullmatch(self.model)):
            raise InvalidValue("LLMService.model", self.model, "use letters, digits, '-', '_', '.' and '/'")
        if isinstance(self.args, str) or not all(isinstance(word, str) for word in self.args):
            raise InvalidValue("LLMService.args", self.args, "use a list of strings")
        object.__setattr__(self, "args", tuple(self.args))
        check_names(self, "base_refs")

    @property
    def traffic(self) -> Traffic:
        """All: a revision replaces the one before as a whole."""
        return Traffic()

    def next_to(self, previous: LLMService | None) -> LLMService:  # noqa: ARG002
        """The same: nothing stands beside it."""
        return self

    @property
    def revision(self) -> str:
        """Name of what runs: equal content gives an equal name.

        What restarts no pod is left out: the number of replicas, the router, labels and annotations.
        """
        service = replace(self.service, scaling=Scaling(), labels={}, annotations={})
        prefill = self.prefill and replace(self.prefill, replicas=1)
        return revision_name(replace(self, service=service, prefill=prefill, router=None))
