"""Django's settings, made of the options; there is one set of them in a process."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any, Final

import django
from django.conf import settings

from longshore.errors import ConfigError
from longshore.serving.django_app.database import connection_settings
from longshore.serving.django_app.options import DjangoOptions

__all__ = ["configure", "make_settings"]

_APP: Final = "longshore.serving.django_app"


def configure(options: DjangoOptions) -> None:
    """Set Django up, once in a process. Settings that are there already and have this application are left alone.

    Raises:
        ConfigError: If it is set up otherwise already, or the folder of its data cannot be written.
    """
    if settings.configured:
        if getattr(settings, "LONGSHORE_OPTIONS", options) != options or _APP not in settings.INSTALLED_APPS:
            raise ConfigError(
                f"Django is set up otherwise in this process already: add {_APP!r} to INSTALLED_APPS there, or use "
                "another process"
            )
    else:
        settings.configure(**make_settings(options))
        # what strangers send must not fill the log
        logging.getLogger("django.security.DisallowedHost").propagate = False
    django.setup()


def make_settings(options: DjangoOptions) -> dict[str, Any]:
    """The settings.

    Args:
        options: What they are made of; the folder of its data is made, and a secret key in it where none is given.

    Raises:
        ConfigError: If that folder cannot be written.
    """
    return {
        "LONGSHORE_OPTIONS": options,
        "DEBUG": False,
        "SECRET_KEY": _make_folder(options),
        "ALLOWED_HOSTS": options.hosts,
        "CSRF_TRUSTED_ORIGINS": list(options.trusted_origins),
        "INSTALLED_APPS": [
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            _APP,
        ],
        # of the panel only: predictions are answered before Django sees them
        "MIDDLEWARE": [
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
            f"{_APP}.views.SecurityHeaders",
        ],
        "ROOT_URLCONF": f"{_APP}.urls",
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        "DATABASES": {"default": connection_settings(options)},
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": f"django.contrib.auth.password_validation.{name}"}
            for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
        ],
        "USE_TZ": True,
        "TIME_ZONE": "UTC",
        "STATIC_URL": "/static/",
        # whoever runs the process says how it logs
        "LOGGING_CONFIG": None,
        "SESSION_COOKIE_AGE": 8 * 3600,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_NAME": "longshore_session",
        "SESSION_COOKIE_SECURE": options.secure,
        "CSRF_COOKIE_NAME": "longshore_csrf",
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SECURE": options.secure,
        "SECURE_HSTS_SECONDS": 3600 if options.secure else 0,
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https") if options.secure else None,
        "SECURE_REFERRER_POLICY": "same-origin",
        "X_FRAME_OPTIONS": "DENY",
        # 'delete selected' sends a field for each row
        "DATA_UPLOAD_MAX_NUMBER_FIELDS": 10_000,
    }


def _make_folder(options: DjangoOptions) -> str:
    """Make the folder of the data; gives the secret key in it, if none is given."""
    path = options.data_dir / "secret_key"
    try:
        if options.secret_key is None or options.database_url is None:
            options.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if options.secret_key is not None:
            return options.secret_key
        if not path.exists():
            mine = options.data_dir / f"secret_key.{os.getpid()}"
            with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(48))
            try:
                # of several processes that start at once, one is the first
                path.hardlink_to(mine)
            except FileExistsError:
                pass
            finally:
                mine.unlink()
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(
            f"the folder of the Django face's data cannot be used: {error}. Have LONGSHORE_DJANGO_DATA_DIR name one "
            "that can be written"
        ) from error
