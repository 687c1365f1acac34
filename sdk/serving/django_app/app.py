"""The application as WSGI and as ASGI.

What is not the panel's is answered before Django sees it: its handler takes about as long as a small model, its pages
of errors are HTML, and probes come with host names that nobody could list.
"""

from __future__ import annotations

import atexit
import io
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final

from longshore.errors import ConfigError
from longshore.serving.application import Application
from longshore.serving.asgi import AsgiApp, AsgiFace, Receive, Scope, Send
from longshore.serving.batching import WAITING
from longshore.serving.django_app.options import DjangoOptions
from longshore.serving.django_app.settings import configure
from longshore.serving.messages import Request
from longshore.serving.refusals import RequestError
from longshore.serving.wsgi import headers_of, read_body

__all__ = ["Attached", "attach", "create_asgi_app", "create_wsgi_app"]

Environ = dict[str, Any]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_PANEL: Final = ("/admin/", "/static/")

_log = logging.getLogger("longshore.serving")


class Attached:
    """What writes and reads the database for an application; :meth:`close` ends it.

    Args:
        ends: Called at the end, in their order.
    """

    def __init__(self, ends: list[Callable[[], None]]) -> None:
        self._ends = ends
        atexit.register(self.close)

    def close(self) -> None:
        """Write down what waits, and end. It is called at the end of the process if nobody did before."""
        atexit.unregister(self.close)
        ends, self._ends = self._ends, []
        for end in ends:
            end()


def attach(application: Application, options: DjangoOptions) -> Attached:
    """Set Django up, and give an application its prediction log and its check of tokens.

    A database that is away keeps nothing from being served: the tables are made once it is there.

    Args:
        application: The application.
        options: What it is given.

    Raises:
        ConfigError: If Django is set up otherwise already, its data cannot be kept, or tokens are checked already.
    """
    if options.require_token and application.authorise is not None:
        raise ConfigError(
            "tokens are checked in two ways: use either a file of tokens or the tokens of users, not both"
        )
    configure(options)
    # Django refuses its database to a thread with an event loop
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_prepare, options).result()
    ends: list[Callable[[], None]] = []
    if options.require_token:
        from longshore.serving.django_app.tokens import TokenCheck

        check = TokenCheck(options)
        check.start()
        application.authorise = check
        ends.append(check.close)
    from longshore.serving.django_app.log import PredictionLog

    log = PredictionLog(application, options)
    log.start()
    ends.append(log.close)
    return Attached(ends)


def _prepare(options: DjangoOptions) -> None:
    from django.db import Error, connection

    from longshore.serving.django_app.database import prepare

    try:
        prepare(options)
    except Error as error:
        _log.warning(
            "the database cannot be used for now (%s): predictions are answered without it", str(error).strip()
        )
    finally:
        connection.close()


def create_wsgi_app(application: Application, options: DjangoOptions | None = None) -> WsgiApp:
    """The application for a WSGI server such as Gunicorn; to be called in the process that serves, after any fork.

    Args:
        application: What answers.
        options: Options of the Django face; by default those of the environment.

    Raises:
        ConfigError: If Django is set up otherwise in this process.
        InvalidValue: If an option breaks its rule.
    """
    options = options or DjangoOptions.from_environment()
    attach(application, options)
    from django.core.wsgi import get_wsgi_application

    panel: WsgiApp = get_wsgi_application()

    def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        # WSGI gives the path's bytes as Latin-1
        path = str(environ["PATH_INFO"]).encode("latin-1").decode(errors="replace")
        body = read_body(environ, application.body_limit)
        request = Request(environ["REQUEST_METHOD"], path, headers_of(environ), body)
        if not options.admin or not _is_panel(path):
            answer = application.answer(request)
        elif isinstance(body, RequestError):
            answer = application.refuse(request, body)
        else:
            given = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
            return panel({**environ, **given}, start_response)
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [answer.body]

    return app


def create_asgi_app(
    application: Application, options: DjangoOptions | None = None, *, waiting: int = WAITING
) -> AsgiApp:
    """The application for an ASGI server such as Daphne or Uvicorn.

    Args:
        application: What answers.
        options: Options of the Django face; by default those of the environment.
        waiting: At most so many requests wait for the model; more are answered with 503.

    Raises:
        ConfigError: If Django is set up otherwise in this process.
        InvalidValue: If an option breaks its rule.
    """
    options = options or DjangoOptions.from_environment()
    attach(application, options)
    from django.core.asgi import get_asgi_application

    face = AsgiFace(application, waiting)
    panel: Any = get_asgi_application()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # before it is accepted: Daphne answers 403
            await send({"type": "websocket.close"})
        elif scope["type"] != "http":
            raise NotImplementedError(f"there is no {scope['type']} here")
        elif options.admin and _is_panel(scope["path"]):
            await face.guard(panel, scope, receive, send)
        else:
            await face(scope, receive, send)

    return app


def _is_panel(path: str) -> bool:
    return path.startswith(_PANEL) or path == "/admin"
