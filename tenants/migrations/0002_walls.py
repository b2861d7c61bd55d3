from django.db import migrations

from tenants.rls import APPEND_ONLY, keyed, points_at, sequences, shared, wall


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        wall("tenants_tenant", column="id", door=True),
        wall("tenants_membership", door=True),
        wall("tenants_apikey", door=True),
        wall("tenants_providercredential", door=True),
        # An event is evidence: its one later change is the mark that it was handed to the webhooks.
        wall("tenants_event", grants=APPEND_ONLY + ", UPDATE (fanned_out_at)", door=True),
        wall("tenants_webhookendpoint"),
        wall("tenants_webhookdelivery", door=True),
        *[keyed(f"tenants_{name}") for name in ("apikey", "event", "webhookendpoint", "webhookdelivery")],
        points_at("tenants_webhookdelivery", "endpoint_id", "tenants_webhookendpoint"),
        points_at("tenants_webhookdelivery", "event_id", "tenants_event"),
        shared("tenants_user"),
        shared("tenants_user_groups"),
        shared("tenants_user_user_permissions"),
        sequences("tenants_user"),
    ]
