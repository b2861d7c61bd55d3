import django.db.models.deletion
import uuid
from django.db import migrations, models

from tenants.rls import keyed, wall


class Migration(migrations.Migration):

    dependencies = [
        ('ingestion', '0007_curation_put_off'),
        ('tenants', '0003_scopes_and_shares'),
    ]

    operations = [
        migrations.CreateModel(
            name='Erasure',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('subject_hmac', models.CharField(max_length=64)),
                ('is_new', models.BooleanField()),
                ('requested_by', models.CharField(max_length=120)),
                ('requested_at', models.DateTimeField()),
                ('finished_at', models.DateTimeField(null=True)),
                ('calls', models.PositiveIntegerField(default=0)),
                ('payloads', models.PositiveIntegerField(default=0)),
                ('examples', models.PositiveIntegerField(default=0)),
                ('parked', models.PositiveIntegerField(default=0)),
                ('datasets', models.JSONField(default=list)),
                ('tenant', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='tenants.tenant')),
            ],
            options={
                'constraints': [models.UniqueConstraint(condition=models.Q(('finished_at', None)), fields=('tenant', 'subject_hmac'), name='one_open_erasure_per_subject')],
            },
        ),
        wall("ingestion_erasure", door=True),
        keyed("ingestion_erasure"),
    ]
