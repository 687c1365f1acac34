"""What TorchServe's pods are told beyond what every platform is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from longshore.errors import InvalidValue
from longshore.spec.checks import check_choice, check_image, check_subdomain
from longshore.spec.router import Tls

__all__ = ["TORCHSERVE_INSTEAD", "TorchServeOptions"]

TORCHSERVE_INSTEAD: Final = ("longshore",)
"""What can answer in TorchServe's place, at the same address."""


@dataclass(frozen=True, kw_only=True)
class TorchServeOptions:
    """How TorchServe is run on Kubernetes, behind a gate that asks for tokens and speaks TLS.

    Clients need a token and come by TLS, unless that is switched off by name.

    Args:
        token_secret: Name of a Secret in the namespace; each of its values is a token that clients may send, or several
            on a line each (16 or more letters, digits and ``._~+/-``; ``openssl rand -hex 32``).
        anonymous: Whether whoever reaches the pods may ask, without a token.
        tls: The certificate, in a Secret of type ``kubernetes.io/tls``. With a router in front, it is the router's
            (``Router.tls``).
        plaintext: Whether clients come without TLS.
        instead: What answers in TorchServe's place, from the same package, at the same address and to the same tokens:
            ``longshore``, which is longshore's own server; None is TorchServe.
        pod_monitor: Whether Prometheus' operator is told to collect the metrics; it needs the kind PodMonitor.
        setup_image: Image with longshore that brings the package into the pod, and answers in TorchServe's place if
            it is to; None is longshore's own.
        gate_image: Image of the Nginx that is the gate; None is the official one that needs no root.
    """

    token_secret: str | None = None
    anonymous: bool = False
    tls: Tls | None = None
    plaintext: bool = False
    instead: str | None = None
    pod_monitor: bool = False
    setup_image: str | None = None
    gate_image: str | None = None

    def __post_init__(self) -> None:
        if self.token_secret is not None:
            check_subdomain("TorchServeOptions.token_secret", self.token_secret)
            if self.anonymous:
                raise InvalidValue("TorchServeOptions.anonymous", self.anonymous, "with token_secret, tokens are due")
        if self.tls is not None:
            if self.plaintext:
                raise InvalidValue("TorchServeOptions.plaintext", self.plaintext, "with tls, clients come by TLS")
            if self.tls.secret is None:
                raise InvalidValue("Tls.cert_file", self.tls.cert_file, "on Kubernetes the certificate is in a Secret")
        if self.instead is not None:
            check_choice("TorchServeOptions.instead", self.instead, TORCHSERVE_INSTEAD)
        for name in ("setup_image", "gate_image"):
            if (value := getattr(self, name)) is not None:
                check_image(f"TorchServeOptions.{name}", value)
