"""The paths that Django answers. Those of predictions do not come here."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from longshore.serving.django_app.views import static_file

__all__ = ["urlpatterns"]

urlpatterns = [
    path("static/<path:path>", static_file),
    path("admin/", admin.site.urls),
]
