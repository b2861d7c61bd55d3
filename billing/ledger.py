"""Keeps the ledger equal to the facts by appending alone: an hour's entry first, adjustments for what came late."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Count, Sum

from billing.core.entries import Figures, Key, Written, find_adjustments
from billing.measure import HOUR, measure
from billing.models import LedgerEntry
from ingestion.prices import PriceBook
from tenants.scope import acting_for

LOOK_BACK: Final = timedelta(hours=48)  # how late a call may come and still be seen by an ordinary look
_KEY: Final = tuple(field.name for field in fields(Key))
_FIGURES: Final = tuple(field.name for field in fields(Figures))


def roll_up(tenant_id: UUID, *, now: datetime, since: datetime | None = None, until: datetime | None = None) -> int:
    """Append what the hours of [since, until) lack, of the last two days if nothing is said; the number of entries.

    No lock is held. What is written is read first and the facts afterwards, and an entry's `sequence` is the number of
    entries seen. So of two looks at once the second's entry meets the first's number and is dropped, and what it saw
    beyond the first is appended by the next look.
    """
    start = hour_of(since if since is not None else now - LOOK_BACK)
    end = until if until is not None else hour_of(now) + HOUR
    with acting_for(tenant_id):
        written = _written(start, end)
        adjustments = find_adjustments(measure(start, end, book=PriceBook.load(now)), written)
        entries = [
            LedgerEntry(
                tenant_id=tenant_id, sequence=found.sequence, made_at=now, **asdict(found.key), **asdict(found.figures)
            )
            for found in adjustments
        ]
        LedgerEntry.objects.bulk_create(entries, ignore_conflicts=True, batch_size=500)
    return len(entries)


def hour_of(at: datetime) -> datetime:
    """The start of the hour in UTC that an instant lies in."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _written(start: datetime, end: datetime) -> Mapping[Key, Written]:
    sums = {f"sum_{name}": Sum(name) for name in _FIGURES}
    found = (
        LedgerEntry.objects.filter(hour__gte=start, hour__lt=end).values(*_KEY).annotate(**sums, entries=Count("id"))
    )
    return {
        Key(**{name: row[name] for name in _KEY}): Written(
            Figures(**{name: row[f"sum_{name}"] for name in _FIGURES}), row["entries"]
        )
        for row in found
    }
