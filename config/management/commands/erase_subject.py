"""Erases a person from a tenant's log, datasets and everything that holds their text, and says what was touched."""

import argparse
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from ingestion.erase import erase_subject
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
        with acting_for(options["tenant"]):
            if not Tenant.objects.exists():
                raise CommandError("there is no such tenant")
            erasure = erase_subject(options["subject"], actor="operator", clock=partial(datetime.now, UTC))
        self.stdout.write(str(erasure))
