"""Tries the parked records again, once what they were parked for is mended."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand

from ingestion.prices import PriceBook
from ingestion.store import unpark


class Command(BaseCommand):
    """`manage.py unpark`: safe to run at any time, also beside the feed."""

    help = __doc__
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Store what can be stored, and say how much stays."""
        stored, left = unpark(price=PriceBook.load(datetime.now(UTC)).cost_of)
        self.stdout.write(f"{stored} records stored, {left} still parked")
