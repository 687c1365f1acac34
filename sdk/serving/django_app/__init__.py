"""The Django face: predictions in front, and behind them an admin panel, a log of predictions and users' tokens.

===================================================  ===================================================================
:mod:`longshore.serving.django_app.options`          what it is told, by the environment
:mod:`longshore.serving.django_app.settings`         Django's settings, made of that
:mod:`longshore.serving.django_app.database`         the database: its address, its tables, its first user
:mod:`longshore.serving.django_app.models`           what is in it
:mod:`longshore.serving.django_app.writer`           a bounded queue and the thread that empties it
:mod:`longshore.serving.django_app.log`              predictions, written down off their path
:mod:`longshore.serving.django_app.tokens`           who may ask
:mod:`longshore.serving.django_app.admin`            the panel
:mod:`longshore.serving.django_app.app`              the application as WSGI and as ASGI
:mod:`longshore.serving.django_app.manage`           Django's commands, for this server's database
===================================================  ===================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from longshore._lazy import load

if TYPE_CHECKING:
    from longshore.serving.django_app.app import create_asgi_app, create_wsgi_app
    from longshore.serving.django_app.options import DjangoOptions

_HOME: Final = {
    "DjangoOptions": "longshore.serving.django_app.options",
    "create_asgi_app": "longshore.serving.django_app.app",
    "create_wsgi_app": "longshore.serving.django_app.app",
}

__all__ = ["DjangoOptions", "create_asgi_app", "create_wsgi_app"]


def __getattr__(name: str) -> Any:
    return load(__name__, _HOME, name)


def __dir__() -> list[str]:
    return sorted(__all__)
