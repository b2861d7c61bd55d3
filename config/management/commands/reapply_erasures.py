"""Erases again, in every tenant, whom a restored backup brought back."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from ingestion.erase import reapply_erasures
from tenants.models import tenant_ids


class Command(BaseCommand):
    """`manage.py reapply_erasures`: after a restore, once `ingestion_erasedsubject` is restored as well."""

    help = __doc__
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Suspended tenants too; a person's erasure does not wait for a bill."""
        clock = partial(datetime.now, UTC)
        back = sum(reapply_erasures(tenant_id, clock=clock) for tenant_id in tenant_ids(suspended_too=True))
        self.stdout.write(f"{back} subjects had come back and are erased again")
