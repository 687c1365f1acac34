"""``python -m longshore.serving.kserve_server``: a packaged model inside KServe's own model server.

For those who want exactly KServe's server, with its arguments, ports and routes. ``python -m longshore.serving`` takes
less, and is what KServe's runtime ``longshore`` runs.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Final

from longshore.errors import InvalidValue, MissingExtra
from longshore.serving.process import add_model_arguments, log_failure, set_up, source_of

if TYPE_CHECKING:
    from longshore.serving.core import Predictor
    from longshore.serving.models import Models

__all__ = ["main"]

_NOT_HERE: Final = {
    "model_name": "it is given as --name",
    "workers": "each would count for itself: add replicas",
    "predictor_host": "the model is in this process",
    "protocol": "the model is in this process",
    "predictor_protocol": "the model is in this process",
    "predictor_use_ssl": "the model is in this process",
    "predictor_request_timeout_seconds": "the model is in this process",
    "predictor_request_retries": "the model is in this process",
    "enable_predictor_health_check": "the model is in this process",
}
"""Arguments of KServe's that a predictor has no use for, and why."""

_log = logging.getLogger("longshore.serving")


def main() -> int:
    """Serve what the command line says until told to end; 0 then, 1 if the model could not be served.

    KServe's package reads the command line by itself when it is imported, so there is no other way to give arguments.
    """
    set_up()
    try:
        import kserve.model_server

        from longshore.serving.kserve_app import ModelServer, ServedModel, observe
        from longshore.serving.loading import load_models
    except ModuleNotFoundError as error:
        _log.error("%s", MissingExtra(f"KServe's model server (which lacks {error.name!r})", "kserve", "kserve"))
        return 1
    options = _parse(kserve.model_server.parser)
    try:
        predictor = _only(load_models(source_of(options)))
    except Exception as error:  # noqa: BLE001 - whatever the model's own code raises is why it cannot be served
        log_failure(options.model, error)
        return 1
    observe(kserve.model_server.app, predictor)
    ModelServer(options.drain_seconds).start([ServedModel(predictor)])
    _log.info("revision %s has ended", options.revision)
    return 0


def _only(models: Models) -> Predictor:
    if len(models.predictors) > 1:
        raise InvalidValue("model", models.versions, "KServe's server has no versions: name the directory of one")
    return models.default


def _parse(theirs: ArgumentParser) -> Namespace:
    parser = ArgumentParser(
        prog="python -m longshore.serving.kserve_server",
        description="Serve one revision of a model with KServe's own model server.",
        parents=[theirs],
        allow_abbrev=False,
    )
    add_model_arguments(parser)
    options = parser.parse_args()
    for name, why in _NOT_HERE.items():
        if getattr(options, name) != theirs.get_default(name):
            parser.error(f"argument --{name}: leave it out, {why}")
    return options


if __name__ == "__main__":
    sys.exit(main())
