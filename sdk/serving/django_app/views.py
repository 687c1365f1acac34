"""What Django itself answers beside the admin panel."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import django.contrib.admin
from django.http import Http404, HttpRequest, HttpResponse

__all__ = ["SecurityHeaders", "static_file"]


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    folder = Path(next(iter(django.contrib.admin.__path__))) / "static"
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def static_file(request: HttpRequest, path: str) -> HttpResponse:  # noqa: ARG001
    """A file of the admin panel. Only those in its folder are known, so a path leads nowhere else."""
    file = _files().get(path)
    if file is None:
        raise Http404(path)
    kind, _ = mimetypes.guess_type(file.name)
    return HttpResponse(
        file.read_bytes(),
        content_type=kind or "application/octet-stream",
        headers={"Cache-Control": "public, max-age=3600"},
    )


class SecurityHeaders:
    """Has the browser load nothing from elsewhere, and keep no page of the panel.

    Args:
        get_response: What comes after it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers.setdefault(
            "Content-Security-Policy",
            "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
            "form-action 'self'",
        )
        response.headers.setdefault("Cache-Control", "no-store")
        return response
