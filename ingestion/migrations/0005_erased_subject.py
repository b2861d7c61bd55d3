import django.db.models.deletion
from django.db import migrations, models

from tenants.rls import keyed, sequences, wall


class Migration(migrations.Migration):
    dependencies = [("ingestion", "0004_prices"), ("tenants", "0002_walls")]

    operations = [
        migrations.CreateModel(
            name="ErasedSubject",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("subject_hmac", models.CharField(max_length=64)),
                ("erased_at", models.DateTimeField()),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="tenants.tenant"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("tenant", "subject_hmac"), name="one_tombstone_per_subject")
                ],
            },
        ),
        # A tombstone is never lifted: no update, no delete.
        wall("ingestion_erasedsubject", grants="SELECT, INSERT"),
        keyed("ingestion_erasedsubject"),
        sequences("ingestion_erasedsubject"),
    ]
