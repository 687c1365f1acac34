"""Where a service is and what it serves: the runtime of its platform, the release that it bears, its model's card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longshore.errors import ConfigError
from longshore.release import release_in, serving_in
from longshore.spec import Endpoint, ModelSource, Release, Service
from longshore.storage import fetch_directory
from longshore.targets import ROUTABLE, target_of
from longshore.targets.base import PREVIOUS_ANNOTATION, Manifest, Ref, Runtime

if TYPE_CHECKING:
    from longshore.cluster import Session
    from longshore.packaging import ModelCard

__all__ = [
    "Bearer",
    "bearers",
    "card_of",
    "default_namespace",
    "deployed_release",
    "earlier_release",
    "example_rows",
    "find_bearer",
    "find_endpoint",
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


@dataclass(frozen=True)
class Bearer:
    """The object that bears a service's release, as it was when it was read.

    Args:
        ref: Where it is; where it would be without a router if there is none.
        runtime: What holds it.
        manifest: The object, None if there is none.
    """

    ref: Ref
    runtime: Runtime
    manifest: Manifest | None

    @property
    def last(self) -> Release | None:
        """The release that was deployed last, whatever its share."""
        return None if self.manifest is None else release_in(self.manifest)

    @property
    def serving(self) -> Release | None:
        """The release that was last given requests."""
        return None if self.manifest is None else serving_in(self.manifest, Release)

    @property
    def earlier(self) -> Release | None:
        """The release that the one of now replaced."""
        return None if self.manifest is None else release_in(self.manifest, PREVIOUS_ANNOTATION)


def bearers(platform: str, name: str, namespace: str, runtime: Runtime) -> list[Bearer]:
    """The objects that can bear a service's release: without a router, then with one."""
    refs = target_of(platform).objects(Service(name=name, namespace=namespace))[:1]
    if platform in ROUTABLE:
        from longshore.targets.routed import routed_bearer

        refs.append(routed_bearer(name, namespace))
    return [Bearer(ref, runtime, runtime.get(ref)) for ref in refs]


def find_bearer(name: str, platform: str, namespace: str | None, session: Session | None) -> Bearer:
    """The object that bears a service's release."""
    runtime = runtime_of(platform, session)
    found = bearers(platform, name, namespace or default_namespace(platform, session), runtime)
    return next((bearer for bearer in found if bearer.last is not None), found[0])


def deployed_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release:
    """The release that was deployed last, whatever its share, with what stands beside it.

    Raises:
        ConfigError: If nothing of that name was deployed.
    """
    bearer = find_bearer(name, platform, namespace, session)
    release = bearer.last
    if release is None:
        raise _no_release(bearer.ref)
    return release


def earlier_release(
    name: str, *, platform: str = "local", namespace: str | None = None, session: Session | None = None
) -> Release | None:
    """The release that the one of now replaced, None if there was none."""
    return find_bearer(name, platform, namespace, session).earlier


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
    bearer = find_bearer(name, platform, namespace, session)
    release = bearer.serving
    if release is None:
        raise _no_release(bearer.ref)
    target = target_of(platform, routed=release.service.router is not None)
    found = [bearer.runtime.get(ref) for ref in target.objects(release.service)]
    return target.endpoint(release, [manifest for manifest in found if manifest is not None]), release
