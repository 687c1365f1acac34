"""The admin panel: predictions, what is served, and tokens."""

from __future__ import annotations

import csv
from typing import Any, Final

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from longshore.serving.django_app.cells import as_cell
from longshore.serving.django_app.models import Prediction, ServedModel, Token
from longshore.serving.django_app.tokens import create_token, revoke

__all__ = ["PredictionAdmin", "ServedModelAdmin", "TokenAdmin"]

_CSV_ROWS: Final = 50_000

admin.site.site_header = admin.site.site_title = "longshore"
admin.site.index_title = "Model server"
admin.site.site_url = None


class _ReadOnly(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Prediction)
class PredictionAdmin(_ReadOnly):
    """Predictions: found, read, exported and deleted, but not changed."""

    list_display = (
        "time",
        "model",
        "version",
        "revision",
        "protocol",
        "status",
        "rows",
        "milliseconds",
        "user",
        "request_id",
    )
    list_filter = ("status", "protocol", "model", "version", "revision", "user")
    search_fields = ("=request_id", "user", "error")
    date_hierarchy = "time"
    show_full_result_count = False
    list_per_page = 50
    actions = ("export_csv",)

    @admin.display(description="ms", ordering="seconds")
    def milliseconds(self, row: Prediction) -> str:
        """How long it took."""
        return f"{row.seconds * 1000:.1f}"

    @admin.action(description="Export as CSV", permissions=["view"])
    def export_csv(self, request: HttpRequest, rows: Any) -> HttpResponse | None:
        """The chosen rows as a file."""
        if (number := rows.count()) > _CSV_ROWS:
            self.message_user(
                request, f"{number} rows are more than {_CSV_ROWS}: filter them first", level=messages.ERROR
            )
            return None
        names = [field.name for field in rows.model._meta.fields]  # noqa: SLF001 - public
        response = HttpResponse(
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="predictions.csv"'},
        )
        lines = csv.writer(response)
        lines.writerow(names)
        for row in rows.iterator(chunk_size=1000):
            lines.writerow([as_cell(getattr(row, name)) for name in names])
        return response


@admin.register(ServedModel)
class ServedModelAdmin(_ReadOnly):
    """What is and was served."""

    list_display = ("name", "version", "revision", "estimator", "task", "target", "started")
    list_filter = ("name", "version")
    search_fields = ("revision", "digest")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):
    """Tokens: made, shown once, revoked. What they stand for is not changed."""

    list_display = ("hint", "user", "label", "created", "expires", "last_used", "counts")
    list_filter = ("user",)
    search_fields = ("hint", "label", "user__username")
    fields = ("user", "label", "expires", "hint", "created", "last_used", "revoked")
    actions = ("revoke_tokens",)

    def get_readonly_fields(self, request: HttpRequest, obj: Token | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return self.fields if obj is not None else ("hint", "created", "last_used", "revoked")

    def get_fields(self, request: HttpRequest, obj: Token | None = None) -> tuple[str, ...]:  # noqa: ARG002
        return self.fields if obj is not None else ("user", "label", "expires")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # the list's actions take it; there is no field that could be changed
        return bool(super().has_change_permission(request, obj))

    @admin.display(boolean=True, description="valid")
    def counts(self, token: Token) -> bool:
        """Whether it is accepted."""
        expired = token.expires is not None and token.expires <= timezone.now()
        return token.revoked is None and not expired and token.user.is_active

    @admin.action(description="Revoke", permissions=["change"])
    def revoke_tokens(self, request: HttpRequest, tokens: Any) -> None:
        """Have the chosen tokens count no more."""
        self.message_user(request, f"{revoke(tokens)} revoked")

    def save_model(self, request: HttpRequest, obj: Token, form: Any, change: bool) -> None:  # noqa: ARG002
        if change:
            return
        row, token = create_token(obj.user, obj.label, obj.expires)
        obj.pk, obj.hint = row.pk, row.hint
        obj.shown_once = token

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: str | None = None) -> HttpResponse:  # noqa: ARG002
        context = {**self.admin_site.each_context(request), "title": "Token", "token": obj.shown_once, "row": obj}
        return TemplateResponse(request, "admin/longshore/token/created.html", context)
