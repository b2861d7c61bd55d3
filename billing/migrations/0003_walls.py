from django.db import migrations

from tenants.rls import APPEND_ONLY, keyed, points_at, sequences, wall


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_initial"), ("serving", "0003_walls")]

    operations = [
        wall("billing_ledgerentry", grants=APPEND_ONLY),
        wall("billing_savingsstatement", door=True),
        wall("billing_subscription"),
        wall("billing_invoice", door=True),
        *[keyed(f"billing_{name}") for name in ("ledgerentry", "savingsstatement", "subscription", "invoice")],
        points_at("billing_invoice", "statement_id", "billing_savingsstatement"),
        sequences("billing"),
    ]
