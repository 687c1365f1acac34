"""The application, as Django knows it."""

from __future__ import annotations

from django.apps import AppConfig

__all__ = ["LongshoreConfig"]


class LongshoreConfig(AppConfig):
    """Predictions, tokens and models of a model server."""

    name = "longshore.serving.django_app"
    label = "longshore"
    verbose_name = "Model server"
    default_auto_field = "django.db.models.BigAutoField"
