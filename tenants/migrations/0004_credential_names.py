from django.db import migrations, models

from tenants.rls import keyed


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0003_scopes_and_shares"),
    ]

    operations = [
        migrations.AddField(
            model_name="providercredential",
            name="name",
            field=models.SlugField(default="", max_length=40),
            preserve_default=False,
        ),
        # The table's owner, who may be no superuser, sees no row of it while the wall is forced.
        migrations.RunSQL(
            """
            ALTER TABLE tenants_providercredential NO FORCE ROW LEVEL SECURITY;
            UPDATE tenants_providercredential SET name = provider;
            ALTER TABLE tenants_providercredential FORCE ROW LEVEL SECURITY;
            """,
            migrations.RunSQL.noop,
        ),
        migrations.RemoveConstraint(
            model_name="providercredential",
            name="one_credential_per_provider",
        ),
        migrations.AddConstraint(
            model_name="providercredential",
            constraint=models.UniqueConstraint(fields=("tenant", "name"), name="one_credential_of_a_name"),
        ),
        keyed("tenants_providercredential"),
    ]
