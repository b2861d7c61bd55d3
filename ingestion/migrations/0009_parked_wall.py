import django.db.models.deletion
from django.db import migrations, models

from tenants.rls import wall

# A record that names no tenant is nobody's.
FILL = """
UPDATE ingestion_parkedrecord SET tenant_id = CASE
  WHEN tenant_ref ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN tenant_ref
  ELSE '00000000-0000-0000-0000-000000000000'
END::uuid;
REVOKE ALL ON ingestion_parkedrecord FROM understudy_app, understudy_door;
"""


class Migration(migrations.Migration):
    dependencies = [("ingestion", "0008_erasures"), ("tenants", "0003_scopes_and_shares")]

    operations = [
        migrations.AddField(
            "parkedrecord",
            "tenant",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="tenants.tenant",
            ),
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.AlterField(
            "parkedrecord",
            "tenant",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="tenants.tenant",
            ),
        ),
        migrations.RemoveField("parkedrecord", "tenant_ref"),
        wall("ingestion_parkedrecord", door=True, door_reads="id, tenant_id, reason, parked_at"),
    ]
