"""The smoke test of a deployment: the model's own example rows, with what opens the service to them."""

from __future__ import annotations

import base64
import logging

from longshore import client
from longshore.deployment.lookup import card_of
from longshore.errors import ConfigError, MissingExtra
from longshore.release import Probe
from longshore.spec import Endpoint, ModelSource, Service
from longshore.targets.base import Ref, Runtime
from longshore.wire.tokens import tokens_of

__all__ = ["access_of", "smoke_test"]

_log = logging.getLogger("longshore.deployment")


def smoke_test(model: ModelSource, access: client.Access | None = None, *, platform: str | None = None) -> Probe | None:
    """Asks for the model's own example rows; None where longshore did not package the model."""
    from longshore import tfserving

    if platform == "tensorflow-serving":
        return tfserving.smoke_test(None if model.digest is None else card_of(model), access=access)
    if model.digest is None:
        _log.info("%s has no longshore card with example rows: it is served without a smoke test", model.uri)
        return None
    card = card_of(model)
    rows, classes = card.example, card.signature.classes

    def ask(endpoint: Endpoint) -> None:
        if endpoint.takes != "rows":
            if platform == "kserve" and "tensorflow" in endpoint.protocols:
                tfserving.smoke_test(card, access=access)(endpoint)
            return
        try:
            client.probe(endpoint, rows, classes, access=access)
        except MissingExtra as error:
            _log.warning("%s is served without a smoke test: %s", endpoint.url, error)

    return ask


def access_of(service: Service, runtime: Runtime) -> client.Access | None:
    """What opens a service to its own smoke test: a token of its Secret; None where it names none, or one not there.

    Raises:
        ConfigError: If this process may not read it.
        InvalidValue: If a line of it is no token: the server would not start with it.
    """
    name = None if service.torchserve is None else service.torchserve.token_secret
    if name is None:
        return None
    found = runtime.look(Ref("v1", "Secret", name, service.namespace))
    if found is None:
        raise ConfigError(
            f"the Secret {name} may not be read here, and the smoke test needs a token of it: give one (access), or "
            f"have the step's Role allow it (longshore rbac --secret {name})"
        )
    values = [base64.b64decode(value) for one in found for value in (one.get("data") or {}).values()]
    option = "TorchServeOptions.token_secret"
    tokens = [token for value in values for token in tokens_of(value, option=option, place=name)]
    return client.Access(token=tokens[0]) if tokens else None
