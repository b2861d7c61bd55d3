import django.db.models.deletion
import uuid
from django.db import migrations, models

from tenants.rls import keyed, points_at, wall


class Migration(migrations.Migration):

    dependencies = [
        ('ingestion', '0009_parked_wall'),
        ('serving', '0005_progress'),
        ('tenants', '0003_scopes_and_shares'),
    ]

    operations = [
        migrations.CreateModel(
            name='Limit',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('measure', models.CharField(choices=[('requests', 'requests'), ('tokens', 'tokens'), ('spend', 'spend')], max_length=10)),
                ('window', models.CharField(choices=[('minute', 'minute'), ('day', 'day'), ('month', 'month')], max_length=10)),
                ('amount', models.DecimalField(decimal_places=9, max_digits=25)),
                ('set_at', models.DateTimeField()),
                ('period', models.CharField(default='', max_length=20)),
                ('used', models.DecimalField(decimal_places=9, default=0, max_digits=25)),
                ('told_share', models.PositiveSmallIntegerField(default=0)),
                ('read_at', models.DateTimeField(null=True)),
                ('key', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.apikey')),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
                ('workload', models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='ingestion.workload')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('tenant', 'measure', 'window', 'key', 'workload'), name='one_limit_of_a_kind', nulls_distinct=False), models.CheckConstraint(condition=models.Q(('key', None), ('workload', None), _connector='OR'), name='of_a_key_or_a_workload'), models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='limit_above_nothing')],
            },
        ),
        wall("serving_limit", door=True),
        keyed("serving_limit"),
        points_at("serving_limit", "key_id", "tenants_apikey"),
        points_at("serving_limit", "workload_id", "ingestion_workload"),
    ]
