"""Where a service is and what it serves: the runtime of its platform, the release that it bears, its model's card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.errors import ConfigError
from longshore.release import current_release, previous_release, release_in
from longshore.spec import Endpoint, ModelSource, Release, Service
from longshore.storage import fetch_directory
from longshore.targets import ROUTABLE, target_of
from longshore.targets.base import Ref, Runtime

if TYPE_CHECKING:
    from longshore.cluster import Session
    from longshore.packaging import ModelCard

__all__ = [
    "bearers",
    "card_of",
    "default_namespace",
    "deployed_release",
    "earlier_release",
    "example_rows",
    "find_bearer",
    "find_endpoint",
    "release_at",
    "runtime_of",
]


def runtime_of(platform: str, session: Session | None, *, force: bool = False) -> Runtime:
    """What holds the objects of a platform: this machine, or a cluster.

    Raises:
        ConfigError: If the platform is this machine, and this is a pod.
    """
    if platform != "local":
        from longshore.cluster import ClusterRuntime

        return ClusterRuntime(session, force=force)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        raise ConfigError(
            "the platform 'local' starts a server on this machine, and in a pod that server would end with the step: "
            "run the pipeline with 'longshore run --local', or choose the platform 'rest'"
        )
    from longshore.local import LocalRuntime

    return LocalRuntime()


def default_namespace(platform: str, session: Session | None = None) -> str:
    """The namespace that a service goes to where none is given: that of this pod, or of the kubeconfig's context."""
    if platform == "local":
        return "default"
    from longshore.cluster import Session

    return (session or Session.default()).namespace


def bearers(platform: str, name: str, namespace: str) -> list[Ref]:
    """The objects that bear a service's release: without a router, then with one."""
    found = target_of(platform).objects(Service(name=name, namespace=namespace))[:1]
    if platform in ROUTABLE:
        from longshore.targets.routed import routed_bearer

        found.append(routed_bearer(name, namespace))
    return found


def find_bearer(name: str, platform: str, namespace: str | None, session: Session | None) -> tuple[Ref, Runtime]:
    """The object that bears a service's release, or would without a router if there is none, and its runtime."""
    runtime = runtime_of(platform, session)
    found = bearers(platform, name, namespace or default_namespace(platform, session))
    return next((ref for ref in found if release_at(ref, runtime) is not None), found[0]), runtime


def release_at(ref: Ref, runtime: Runtime) -> Release | None:
    """The release that an object bears, None if there is no such object or it bears none."""
    manifest = runtime.get(ref)
    return None if manifest is None else release_in(manifest)


def deployed_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release:
    """The release that was deployed last, whatever its share, with what stands beside it.

    Raises:
        ConfigError: If nothing of that name was deployed.
    """
    ref, runtime = find_bearer(name, platform, namespace, session)
    release = release_at(ref, runtime)
    if release is None:
        raise _no_release(ref)
    return release


def earlier_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release | None:
    """The release that the one of now replaced, None if there was none."""
    ref, runtime = find_bearer(name, platform, namespace, session)
    return previous_release(ref, runtime)


def find_endpoint(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Endpoint:
    """Where a service answers that was deployed by longshore.

    Raises:
        ConfigError: If there is none of that name.
    """
    return _served(name, platform, namespace, session)[0]


def example_rows(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Sequence[Mapping[str, Any]]:
    """Rows of its training data that a service's model came with.

    Raises:
        ConfigError: If there is no such service, or longshore did not package its model.
    """
    model = _served(name, platform, namespace, session)[1].model
    if model.digest is None:
        raise ConfigError(f"{model.uri} has no longshore card with example rows: give rows to predict")
    return card_of(model).example


def card_of(model: ModelSource) -> ModelCard:
    """The card of a model that longshore packaged, wherever it is stored."""
    from longshore.packaging import read_card

    with tempfile.TemporaryDirectory(prefix="longshore-") as scratch:
        return read_card(fetch_directory(model.uri, Path(scratch)))


def _no_release(ref: Ref) -> ConfigError:
    return ConfigError(f"{ref} bears no release of longshore's: see what is deployed, and where (--namespace)")


def _served(name: str, platform: str, namespace: str | None, session: Session | None) -> tuple[Endpoint, Release]:
    ref, runtime = find_bearer(name, platform, namespace, session)
    release = current_release(ref, runtime)
    if release is None:
        raise _no_release(ref)
    target = target_of(platform, routed=release.service.router is not None)
    found = [runtime.get(ref) for ref in target.objects(release.service)]
    return target.endpoint(release, [manifest for manifest in found if manifest is not None]), release
