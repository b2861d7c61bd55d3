from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ingestion", "0010_queue_ms"),
    ]

    operations = [
        migrations.AddField(
            model_name="call",
            name="provider",
            field=models.CharField(default="", max_length=20),
        ),
        migrations.AddField(
            model_name="call",
            name="credential_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="call",
            name="failovers",
            field=models.PositiveSmallIntegerField(default=0),
        ),
    ]
