from django.db import migrations
from django.utils import timezone

from ingestion.price_list import listed_prices
from ingestion.prices import record_prices


def fill(apps, schema_editor):
    """The published prices, so that a fresh installation prices its first call."""
    now = timezone.now()
    rows = apps.get_model("ingestion", "Price").objects.db_manager(schema_editor.connection.alias)
    record_prices(rows, listed_prices(now), now=now)


class Migration(migrations.Migration):
    dependencies = [("ingestion", "0003_walls")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
