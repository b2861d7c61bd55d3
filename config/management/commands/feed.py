"""The feed process: drains the spool and keeps the gateways' snapshot in force."""

import signal
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ingestion.spool import UnableToRead
from serving.feed import open_feed, run


class Command(BaseCommand):
    """Runs until it is told to stop."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the feed; SIGTERM and SIGINT end it after the batch at hand."""
        told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _frame: told.append(received))
        try:
            feed = open_feed()
        except UnableToRead as error:
            raise CommandError("another feed has this spool") from error
        run(feed, clock=lambda: datetime.now(UTC), stopped=lambda: bool(told))
