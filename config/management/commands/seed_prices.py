"""Brings the price rows up to what the providers publish; run it after an upgrade of the list."""

from django.core.management.base import BaseCommand
from django.utils import timezone

from ingestion.prices import seed_prices


class Command(BaseCommand):
    """`seed_prices`: safe to run at any time and as often as wanted."""

    help = "Bring the price rows up to what the providers publish."

    def handle(self, *args: object, **options: object) -> None:
        """Seed, and say how many rows were opened."""
        self.stdout.write(f"{seed_prices(timezone.now())} prices opened")
