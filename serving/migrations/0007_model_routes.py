import django.db.models.deletion
import uuid
from django.db import migrations, models

from tenants.rls import keyed, points_at, wall


class Migration(migrations.Migration):
    dependencies = [
        ("serving", "0006_limits"),
        ("tenants", "0004_credential_names"),
    ]

    operations = [
        migrations.CreateModel(
            name="ModelRoute",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("dialect", models.CharField(max_length=20)),
                ("asked_model", models.CharField(max_length=120)),
                ("position", models.PositiveSmallIntegerField()),
                ("model", models.CharField(default="", max_length=120)),
                ("set_at", models.DateTimeField()),
                (
                    "credential",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="+",
                        to="tenants.providercredential",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "dialect", "asked_model", "position"), name="one_place_in_a_model_route"
                    )
                ],
            },
        ),
        wall("serving_modelroute", door=True),
        keyed("serving_modelroute"),
        points_at("serving_modelroute", "credential_id", "tenants_providercredential", on_delete="NO ACTION"),
    ]
