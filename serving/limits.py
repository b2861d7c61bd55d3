"""Limits as a tenant's people see them: set, removed, read, and told of as they come near.

Data flow: a limit is a row → the feed puts it into the snapshot → gateways count calls against it in Valkey
(`gateway/limits.py`) → a look each minute counts the log in where a counter is new or was flushed, and writes an event
as a day's or a month's limit comes near or a call did not fit.
"""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Count, Q, Sum

from ingestion.models import Call, Workload
from serving.core.limits import MOST, NEAR, Measure, Period, Window, period_of, unit_of
from serving.counters import Reading, Readings, counter_name
from serving.models import Limit
from tenants.events import record_event
from tenants.models import ApiKey
from tenants.scope import acting_for

MOST_LIMITS = 100  # of a tenant: each is looked at with every call
NEAR_SHARE = 100 - 100 // NEAR  # per cent
WATCHED = (Window.DAY, Window.MONTH)  # a minute is over before anybody reads of it


class UnableToLimit(Exception):
    """Such a limit cannot be set; the message says why, for people."""


def set_limit(
    *,
    measure: str,
    window: str,
    amount: Decimal,
    key: ApiKey | None = None,
    workload: Workload | None = None,
    actor: str,
    now: datetime,
) -> Limit:
    """Set a limit, in place of one of the same kind. In force within seconds. Raises UnableToLimit."""
    if key is not None and workload is not None:
        raise UnableToLimit("a limit is a key's or a workload's, not both")
    if key is not None and key.revoked_at is not None:
        raise UnableToLimit("this key is revoked")
    _check_amount(measure, amount)
    of_kind: dict[str, Any] = {"measure": measure, "window": window, "key": key, "workload": workload}
    if not Limit.objects.filter(**of_kind).exists() and Limit.objects.count() >= MOST_LIMITS:
        raise UnableToLimit(f"there are {MOST_LIMITS} limits already: remove one first")
    limit, _ = Limit.objects.update_or_create(
        **of_kind, defaults={"amount": amount, "set_at": now, "period": "", "used": 0, "told_share": 0, "read_at": None}
    )
    record_event(
        "limit.set", now=now, subject_id=limit.id, actor=actor, amount=f"{amount.normalize():f}", **_told(limit)
    )
    return limit


def _check_amount(measure: str, amount: Decimal) -> None:
    if amount <= 0:
        raise UnableToLimit("a limit must be more than 0; to let no call through, revoke the key")
    whole = amount * unit_of(measure)
    if whole != int(whole):
        raise UnableToLimit("requests and tokens are whole numbers, and dollars have nine decimals at most")
    if whole > MOST:
        raise UnableToLimit("that is more than can be counted: 9 million dollars, or 9 × 10¹⁵ tokens or requests")


def remove_limit(limit: Limit, *, actor: str, now: datetime) -> bool:
    """Take a limit away. False if it was gone already."""
    removed, _ = Limit.objects.filter(id=limit.id).delete()
    if removed:
        record_event("limit.removed", now=now, subject_id=limit.id, actor=actor, **_told(limit))
    return bool(removed)


def standing(limit: Limit, now: datetime) -> tuple[Decimal | None, datetime]:
    """What is used of a limit by the latest look, None before there was one, and when its window ends."""
    period = period_of(limit.window, now=now.timestamp())
    return (limit.used if limit.period == period.name else None), datetime.fromtimestamp(period.ends, UTC)


def watch_limits(tenant_id: UUID, *, now: datetime) -> int:
    """Count the log in where that is due, note how limits stand, and tell of those that come near.

    Gives how many events it wrote. Raises UnableToCount.
    """
    with acting_for(tenant_id):
        limits = list(Limit.objects.filter(window__in=WATCHED))
    found = [(limit, period_of(limit.window, now=now.timestamp())) for limit in limits]
    names = [
        counter_name(tenant_id=str(tenant_id), limit_id=str(limit.id), period=period.name) for limit, period in found
    ]
    told = 0
    with Readings(settings.COUNTERS_URL) as readings:
        for (limit, period), name, reading in zip(found, names, readings.read(names), strict=True):
            if not reading.seeded:
                with acting_for(tenant_id):
                    logged = _logged(limit, period)
                reading = replace(reading, used=readings.seed(name, logged, until=period.kept_until))
            told += _note(tenant_id, limit, period, reading, now)
    return told


def _logged(limit: Limit, period: Period) -> int:
    """What the calls of the log took, in the counter's unit; of what was charged in another currency, no money."""
    begins, ends = datetime.fromtimestamp(period.begins, UTC), datetime.fromtimestamp(period.ends, UTC)
    calls = Call.objects.filter(at__gte=begins, at__lt=ends)
    if limit.key_id:
        calls = calls.filter(key_id=limit.key_id)
    if limit.workload_id:
        calls = calls.filter(workload_id=limit.workload_id)
    sums = calls.aggregate(
        requests=Count("id"),
        read=Sum("input_tokens"),
        written=Sum("output_tokens"),
        spend=Sum("teacher_cost", filter=Q(currency="USD")),
    )
    if limit.measure == Measure.REQUESTS:
        return int(sums["requests"])
    if limit.measure == Measure.TOKENS:
        return int(sums["read"] or 0) + int(sums["written"] or 0)
    return int((sums["spend"] or Decimal(0)) * unit_of(Measure.SPEND))


def _note(tenant_id: UUID, limit: Limit, period: Period, reading: Reading, now: datetime) -> int:
    """Gives 1 where that took an event, else 0."""
    told = limit.told_share if limit.period == period.name else 0
    used = Decimal(reading.used) / unit_of(limit.measure)
    near = NEAR_SHARE if 100 * used >= NEAR_SHARE * limit.amount else 0
    reached = reading.refused == limit.entry().amount
    share = max(told, 100 if reached else near)
    with acting_for(tenant_id):
        noted = limit.note(now, period=period.name, used=used, told_share=share)
        if not noted or share == told:
            return 0
        kind = "limit.reached" if reached else "limit.near"
        record_event(kind, now=now, subject_id=limit.id, period=period.name, **_told(limit))
    return 1


def _told(limit: Limit) -> dict[str, str]:
    scope = {"key_id": str(limit.key_id)} if limit.key_id else {}
    scope |= {"workload_id": str(limit.workload_id)} if limit.workload_id else {}
    return {"measure": limit.measure, "window": limit.window, **scope}
