"""The Flask face: the application's routes as rules of Flask, for Gunicorn's threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flask
from werkzeug.exceptions import HTTPException

from longshore.serving import protocol
from longshore.serving.application import Application
from longshore.serving.messages import Request
from longshore.serving.routes import ROUTES, Route, find_route
from longshore.serving.wsgi import headers_of, read_body

__all__ = ["create_app"]


def create_app(application: Application) -> flask.Flask:
    """The web application of one model.

    Blueprints, hooks and further rules can be added as to any application of Flask.

    Args:
        application: What answers; it is in ``app.extensions["longshore"]`` as well.
    """
    # nothing of this package is for clients, so there are no static files
    app = flask.Flask(__name__, static_folder=None)
    app.extensions["longshore"] = application
    for route in ROUTES:
        rule = route.template.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, f"{route.method} {route.template}", _view(application, route), methods=[route.method])
    app.register_error_handler(HTTPException, functools.partial(_refused, application))
    return app


def _view(application: Application, route: Route) -> Callable[..., flask.Response]:
    def view(**_: str) -> flask.Response:
        environ = flask.request.environ
        body = read_body(environ, application.body_limit) if route.reads is not None else b""
        # a HEAD is a GET whose body Flask leaves out
        answer = application.answer(Request(route.method, flask.request.path, headers_of(environ), body))
        return flask.Response(answer.body, answer.status, headers=list(answer.headers))

    return view


def _refused(application: Application, error: HTTPException) -> Any:
    request = flask.request
    if request.routing_exception is not None and find_route(request.method, request.path) is None:
        # counted, logged and told as for the other frameworks
        answer = application.answer(Request(request.method, request.path, headers_of(request.environ)))
        allowed = [pair for pair in error.get_headers() if pair[0].lower() == "allow"]
        return flask.Response(answer.body, answer.status, headers=[*answer.headers, *allowed])
    text = f"{error.description} {request.path}"
    headers = [pair for pair in error.get_headers() if pair[0].lower() == "allow"]
    return flask.Response(
        protocol.encode({"error": text}), error.code or 500, headers=headers, content_type="application/json"
    )
