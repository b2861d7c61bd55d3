from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("ingestion", "0011_who_answered"),
    ]

    operations = [
        migrations.AddField(
            model_name="workload",
            name="log_share",
            field=models.FloatField(db_default=1.0, default=1.0),
        ),
        migrations.AddConstraint(
            model_name="workload",
            constraint=models.CheckConstraint(condition=Q(log_share__gte=0, log_share__lte=1), name="log_share_is_a_share"),
        ),
        migrations.AddField(
            model_name="call",
            name="content_kept",
            field=models.BooleanField(db_default=True, default=True),
        ),
    ]
