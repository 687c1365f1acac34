"""How a service on this machine has its requests shared out to its revisions: by an Nginx in front of their servers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from longshore.local import state as states
from longshore.local.front import Front
from longshore.local.process import bind
from longshore.local.state import ServiceState
from longshore.spec import Router, Tls
from longshore.targets.nginx import nginx_configuration

__all__ = ["certificate_of", "front_of", "parts", "share_out"]


def parts(spec: Mapping[str, Any]) -> set[str]:
    """The revisions that have to be ready for a service to be as an object asks for it."""
    router = spec["router"]
    if router is None:
        return {spec["revision"]} if spec["traffic"] else set()
    if not router["shares"]:
        return set()
    return {*router["shares"], *([spec["revision"]] if router["mirrorPercent"] else ())}


def certificate_of(spec: Mapping[str, Any]) -> Tls | None:
    """The certificate that an object names; None without one."""
    named = None if spec["router"] is None else spec["router"]["tls"]
    if named is None:
        return None
    return Tls(cert_file=named["certFile"], key_file=named["keyFile"], host=named["host"])


def front_of(name: str) -> Front:
    """The Nginx of a service, whether it runs or not."""
    return Front(name, states.folder(name) / "nginx")


def share_out(current: ServiceState) -> ServiceState:
    """Have Nginx share the service's requests out as its object asks.

    Raises:
        ConfigError: If Nginx is not installed, or the certificate cannot be used.
        DeployError: If it cannot be started, or does not take the configuration.
    """
    spec, front = current.manifest["spec"], front_of(current.name)
    router = spec["router"]
    hosts = {
        revision: [f"127.0.0.1:{current.records[server].port}" for server in current.servers_of(revision)]
        for revision in sorted(parts(spec))
    }
    mirrored, tls = router["mirrorPercent"], certificate_of(spec)
    if tls is not None:
        front.certify(tls)

    def configure(port: int) -> str:
        return nginx_configuration(
            router["shares"],
            hosts,
            (spec["revision"], mirrored) if mirrored else None,
            router=Router(
                kind="nginx",
                client=router["client"],
                sticky=router["sticky"],
                requests_per_second=router["requestsPerSecond"],
                timeout_seconds=router["timeoutSeconds"],
                tls=tls,
                access_log=router["accessLog"],
            ),
            salt=current.name,
            listen=f"127.0.0.1:{port}",
            port=port,
            # both are the folder that it is started in
            place=".",
            certificates=".",
            # what its workers read and write is in a folder that is this user's alone
            user="root" if os.geteuid() == 0 else None,
            keeps_idle=front.keeps_idle,
        )

    port = spec["port"] or current.port
    if port is None or current.routed is None or not front.alive:
        port = front.start(configure, port)
    elif current.routed != {"router": router, "hosts": hosts, "port": port}:
        if port != current.port:
            # who cannot have a port is told so better here than in Nginx's log
            os.close(bind(current.name, port))
        front.reload(configure(port), port, spec["drainSeconds"])
    active = spec["revision"] if spec["traffic"] else current.active
    return replace(current, active=active, port=port, routed={"router": router, "hosts": hosts, "port": port})
