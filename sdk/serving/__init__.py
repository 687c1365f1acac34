"""What runs inside a serving process: one predictor core, and thin faces of web frameworks and of gRPC on it.

=========================================  ===========================================================================
:mod:`longshore.serving.core`              the loaded model; knows nothing of the web
:mod:`longshore.serving.metrics`           what is counted, for Prometheus
:mod:`longshore.serving.protocol`          V1 and V2: what a request means; knows no framework
:mod:`longshore.serving.refusals`          what is raised for a request that is answered with an error
:mod:`longshore.serving.models`            the versions that are served side by side
:mod:`longshore.serving.messages`          requests and answers, as faces and the application hand them on
:mod:`longshore.serving.routes`            the paths that are answered
:mod:`longshore.serving.exchange`          the course of one request
:mod:`longshore.serving.application`       what is answered, whatever framework it stands in
:mod:`longshore.serving.openapi`           the operations, described with the model's own columns
:mod:`longshore.serving.asgi`              the application as ASGI
:mod:`longshore.serving.wsgi`              the application as WSGI
:mod:`longshore.serving.fastapi_app`       the FastAPI face
:mod:`longshore.serving.django_app`        the Django face: admin panel, prediction log, users' tokens
:mod:`longshore.serving.grpc_app`          the gRPC face, of V2
:mod:`longshore.serving.process`           what every server process begins with: its arguments, the model, signals
:mod:`longshore.serving.listeners`         Uvicorn on a socket, and the event loop of any listener
:mod:`longshore.serving.daphne_listener`   Daphne on a socket
:mod:`longshore.serving.server`            the process: sockets, readiness, draining
:mod:`longshore.serving.kserve_app`        the face inside KServe's own model server
:mod:`longshore.serving.kserve_server`     the process around that
:mod:`longshore.serving.seldon_app`        the face inside Seldon Core 1's microservice
:mod:`longshore.serving.seldon_protocol`   Seldon's protocol: what a message means; knows nothing of Seldon's package
:mod:`longshore.serving.seldon_hooks`      what Seldon's microservice leaves out
:mod:`longshore.serving.rewards`           what is counted of feedback
:mod:`longshore.serving.explain`           why a row is answered as it is
=========================================  ===========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.serving.application import Application
    from longshore.serving.core import Prediction, Predictor
    from longshore.serving.fastapi_app import create_app

_HOME: Final = {
    "Application": "longshore.serving.application",
    "Prediction": "longshore.serving.core",
    "Predictor": "longshore.serving.core",
    "create_app": "longshore.serving.fastapi_app",
}

__all__ = ["Application", "Prediction", "Predictor", "create_app"]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
