from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("ingestion", "0010_queue_ms"),
    ]

    operations = [
        migrations.AddField(
            model_name="call",
            name="provider",
            field=models.CharField(db_default="", default="", max_length=20),
        ),
        migrations.AddField(
            model_name="call",
            name="credential_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="call",
            name="failovers",
            field=models.SmallIntegerField(db_default=0, default=0),
        ),
    ]
