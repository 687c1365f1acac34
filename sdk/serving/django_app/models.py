"""What is in the database of the Django face."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

__all__ = ["Prediction", "ServedModel", "Token"]


class Prediction(models.Model):
    """A prediction request that was answered."""

    time = models.DateTimeField(db_index=True)
    model = models.CharField(max_length=128)
    version = models.CharField(max_length=64, blank=True)
    revision = models.CharField(max_length=128)
    protocol = models.CharField(max_length=16)
    request_id = models.CharField(max_length=128, db_index=True)
    user = models.CharField(max_length=150, blank=True, help_text="Whose token it came with.")
    status = models.PositiveSmallIntegerField(help_text="HTTP status of the answer.")
    seconds = models.FloatField(help_text="From the request's arrival to the end of its answer.")
    rows = models.PositiveIntegerField()
    inputs = models.JSONField(null=True, help_text="Its instances (V1) or tensors (V2); none where they are too large.")
    predictions = models.JSONField(null=True, help_text="The predictions (V1) or tensors (V2); none for an error.")
    error = models.TextField(blank=True)

    class Meta:  # noqa: D106
        get_latest_by = "time"
        ordering = ("-id",)

    def __str__(self) -> str:
        return str(self.request_id)


class ServedModel(models.Model):
    """A version of a model, and the revision that serves or served it."""

    name = models.CharField(max_length=128)
    version = models.CharField(max_length=64, blank=True)
    revision = models.CharField(max_length=128)
    digest = models.CharField(max_length=80, blank=True)
    format = models.CharField(max_length=32)
    task = models.CharField(max_length=32)
    estimator = models.CharField(max_length=256)
    target = models.CharField(max_length=256)
    columns = models.JSONField()
    started = models.DateTimeField(help_text="When a process last began to serve it.")

    class Meta:  # noqa: D106
        ordering = ("-started",)
        constraints = (models.UniqueConstraint(fields=("name", "version", "revision"), name="longshore_served_once"),)

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


class Token(models.Model):
    """A user's token. The token itself is nowhere: only its digest."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    label = models.CharField(max_length=100, help_text="What it is for.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=12, editable=False, help_text="How the token begins.")
    created = models.DateTimeField(default=timezone.now, editable=False)
    expires = models.DateTimeField(null=True, blank=True, help_text="None: never.")
    revoked = models.DateTimeField(null=True, blank=True, editable=False)
    last_used = models.DateTimeField(null=True, blank=True, editable=False, help_text="To the minute.")

    class Meta:  # noqa: D106
        ordering = ("-created",)

    def __str__(self) -> str:
        return f"{self.hint}… ({self.label})"
