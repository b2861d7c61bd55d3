from decimal import Decimal

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0002_walls"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="webhookdelivery",
            name="delivery_due",
        ),
        migrations.AddField(
            model_name="apikey",
            name="scope",
            field=models.CharField(choices=[("calls", "Calls"), ("manage", "Manage")], default="manage", max_length=20),
        ),
        # Keys that are there could do both, and go on; new ones are for calls alone unless somebody says otherwise.
        migrations.AlterField(
            model_name="apikey",
            name="scope",
            field=models.CharField(choices=[("calls", "Calls"), ("manage", "Manage")], default="calls", max_length=20),
        ),
        migrations.AlterField(
            model_name="tenant",
            name="savings_share",
            field=models.DecimalField(
                blank=True,
                decimal_places=4,
                max_digits=5,
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(Decimal("0")),
                    django.core.validators.MaxValueValidator(Decimal("1")),
                ],
            ),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("status", "due")),
                fields=["tenant", "endpoint", "due_at"],
                name="delivery_due_at",
            ),
        ),
        migrations.AddConstraint(
            model_name="tenant",
            constraint=models.CheckConstraint(
                condition=models.Q(("savings_share__range", (0, 1))), name="savings_share_is_a_share"
            ),
        ),
    ]
