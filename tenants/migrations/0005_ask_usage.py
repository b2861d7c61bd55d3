from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0004_credential_names"),
    ]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="ask_usage",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]
