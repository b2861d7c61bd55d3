"""Erases a person from a tenant's log, datasets and everything that holds their text, and says what was touched."""

import argparse
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from ingestion.erase import UnableToErase, carry_out_erasures, request_erasure
from tenants.models import Tenant
from tenants.scope import acting_for


class Command(BaseCommand):
    """`manage.py erase_subject TENANT SUBJECT`: the subject as callers named it in `user` or `metadata.user_id`."""

    help = __doc__
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Both are needed."""
        parser.add_argument("tenant", type=UUID)
        parser.add_argument("subject")

    def handle(self, *args: Any, **options: Any) -> None:
        """Erase, for the one tenant."""
        clock = partial(datetime.now, UTC)
        with acting_for(options["tenant"]):
            if not Tenant.objects.exists():
                raise CommandError("there is no such tenant")
            try:
                asked = request_erasure(options["subject"], actor="operator", clock=clock)
            except UnableToErase as error:
                raise CommandError(str(error)) from error
        carry_out_erasures(options["tenant"], clock=clock)
        with acting_for(options["tenant"]):
            asked.refresh_from_db()
        counts = ", ".join(f"{getattr(asked, name)} {name}" for name in ("calls", "payloads", "examples", "parked"))
        self.stdout.write(f"erased: {counts}; learnt from in datasets: {', '.join(asked.datasets) or 'none'}")
