"""The first tables."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """The first tables."""

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Prediction",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("time", models.DateTimeField(db_index=True)),
                ("model", models.CharField(max_length=128)),
                ("version", models.CharField(blank=True, max_length=64)),
                ("revision", models.CharField(max_length=128)),
                ("protocol", models.CharField(max_length=16)),
                ("request_id", models.CharField(db_index=True, max_length=128)),
                ("user", models.CharField(blank=True, help_text="Whose token it came with.", max_length=150)),
                ("status", models.PositiveSmallIntegerField(help_text="HTTP status of the answer.")),
                ("seconds", models.FloatField(help_text="From the request's arrival to the end of its answer.")),
                ("rows", models.PositiveIntegerField()),
                (
                    "inputs",
                    models.JSONField(
                        help_text="Its instances (V1) or tensors (V2); none where they are too large.", null=True
                    ),
                ),
                (
                    "predictions",
                    models.JSONField(help_text="The predictions (V1) or tensors (V2); none for an error.", null=True),
                ),
                ("error", models.TextField(blank=True)),
            ],
            options={
                "ordering": ("-id",),
                "get_latest_by": "time",
            },
        ),
        migrations.CreateModel(
            name="ServedModel",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=128)),
                ("version", models.CharField(blank=True, max_length=64)),
                ("revision", models.CharField(max_length=128)),
                ("digest", models.CharField(blank=True, max_length=80)),
                ("format", models.CharField(max_length=32)),
                ("task", models.CharField(max_length=32)),
                ("estimator", models.CharField(max_length=256)),
                ("target", models.CharField(max_length=256)),
                ("columns", models.JSONField()),
                ("started", models.DateTimeField(help_text="When a process last began to serve it.")),
            ],
            options={
                "ordering": ("-started",),
                "constraints": [
                    models.UniqueConstraint(fields=("name", "version", "revision"), name="longshore_served_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Token",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("label", models.CharField(help_text="What it is for.", max_length=100)),
                ("digest", models.CharField(editable=False, max_length=64, unique=True)),
                ("hint", models.CharField(editable=False, help_text="How the token begins.", max_length=12)),
                ("created", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires", models.DateTimeField(blank=True, help_text="None: never.", null=True)),
                ("revoked", models.DateTimeField(blank=True, editable=False, null=True)),
                ("last_used", models.DateTimeField(blank=True, editable=False, help_text="To the minute.", null=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL)),
            ],
            options={
                "ordering": ("-created",),
            },
        ),
    ]
