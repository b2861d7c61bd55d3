"""Tells a tenant's own systems what happened: an event fans out to endpoints, a delivery is tried until it is taken.

The event log is the outbox. Fanning out and the mark that it was done share a transaction, so an event makes exactly
one delivery for each endpoint, whatever crashes; sending is at least once, and a message keeps its id through every
attempt, so that a receiver can tell a repeat.
"""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
from django.conf import settings
from django.db.models import Count, F, Min, Q

from tenants.core.clock import Clock
from tenants.core.sealing import open_sealed, seal
from tenants.core.signing import encode_secret, sign
from tenants.data_keys import purpose_key
from tenants.events import record_event
from tenants.models import Event, Tenant, WebhookDelivery, WebhookEndpoint
from tenants.provision import data_key_in_force
from tenants.scope import acting_for, tenant_in_force
from tenants.webhook_client import GONE, Receipt, UnableToUseUrl, check_url, post

SECRET_BYTES = 32
RETRY_AFTER = tuple(timedelta(seconds=seconds) for seconds in (5, 60, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600))
LEASE = timedelta(seconds=60)
# A failure counts against an endpoint once its delivery has been failing for over half an hour: ten events that meet
# a restart of a few seconds must not cut a tenant off.
COUNTS_FROM_ATTEMPT = 4
STRAIGHT_FAILURES = 10
FAN_OUT_BATCH = 500
# One look's worth. A dead endpoint must not keep the workers from the others, nor a tenant with many from the others'.
ENDPOINTS_PER_TENANT = 3
MOST_ENDPOINTS = 20  # live ones of a tenant
DELIVERIES_PER_ENDPOINT = 500
DRAIN_FOR = timedelta(seconds=30)
FAILURES_PER_DRAIN = 5


State = WebhookDelivery.Status


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery in hand, ready to send."""

    tenant_id: UUID
    delivery_id: UUID
    endpoint_id: UUID
    event_id: UUID
    attempt: int  # 1 for the first
    until: datetime
    url: str
    body: bytes = field(repr=False)
    secret: str = field(repr=False)


def create_endpoint(url: str, *, kinds: Collection[str], actor: str, now: datetime) -> tuple[WebhookEndpoint, str]:
    """Add an endpoint for the tenant in force, for some kinds of event or (empty) all. Raises UnableToUseUrl.

    The second value is the signing secret, to be shown once.
    """
    check_url(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    with acting_for(tenant_in_force()):
        _refuse_one_more()
        endpoint = WebhookEndpoint(url=url, kinds=sorted(set(kinds)), created_at=now)
        secret = encode_secret(os.urandom(SECRET_BYTES))
        endpoint.secret_sealed = seal(_secret_key(), secret.encode(), context=_context(tenant_in_force(), endpoint.id))
        endpoint.save(force_insert=True)
        record_event("endpoint.created", now=now, actor=actor, subject_id=endpoint.id, kinds=endpoint.kinds)
    return endpoint, secret


def disable_endpoint(endpoint: WebhookEndpoint, *, actor: str, now: datetime, reason: str = "by_hand") -> bool:
    """Send nothing more to an endpoint; what is due for it is given up. False if it was disabled already."""
    with acting_for(tenant_in_force()):
        disabled = WebhookEndpoint.objects.filter(id=endpoint.id, disabled_at=None).update(disabled_at=now)
        if not disabled:
            return False
        given_up = WebhookDelivery.objects.filter(endpoint_id=endpoint.id, status=State.DUE).update(
            status=State.EXHAUSTED
        )
        record_event(
            "endpoint.disabled", now=now, actor=actor, subject_id=endpoint.id, reason=reason, given_up=given_up
        )
    return True


def enable_endpoint(endpoint: WebhookEndpoint, *, actor: str, now: datetime) -> bool:
    """Send again what happens from now on. False if it was not disabled. Raises UnableToUseUrl."""
    with acting_for(tenant_in_force()):
        disabled = WebhookEndpoint.objects.filter(id=endpoint.id).exclude(disabled_at=None)
        if not disabled.exists():
            return False
        _refuse_one_more()
        disabled.update(disabled_at=None, straight_failures=0)
        record_event("endpoint.enabled", now=now, actor=actor, subject_id=endpoint.id)
    return True


def _refuse_one_more() -> None:
    Tenant.objects.select_for_update().get()  # two at once would both see room for one
    if WebhookEndpoint.objects.filter(disabled_at=None).count() >= MOST_ENDPOINTS:
        raise UnableToUseUrl(f"{MOST_ENDPOINTS} endpoints are the most: switch one off first")


def fan_out(now: datetime) -> int:
    """Make the deliveries of every event that has none yet; gives how many. Safe to run twice at once."""
    waiting = Event.across_tenants.filter(fanned_out_at=None).values_list("tenant_id", flat=True)
    return sum(_fan_out_for(tenant_id, now) for tenant_id in set(waiting.distinct()))


def endpoints_due(now: datetime) -> list[tuple[UUID, UUID]]:
    """(tenant, endpoint) ids of those with deliveries to be sent now and none in anybody's hands.

    A few of each tenant, those that wait longest; the tenants take turns.
    """
    waiting = (
        WebhookDelivery.across_tenants.filter(status=State.DUE)
        .values("tenant_id", "endpoint_id")
        .annotate(oldest=Min("due_at"), in_hand=Count("id", filter=Q(claimed_until__gte=now)))
        .filter(oldest__lte=now, in_hand=0)
        .order_by("oldest")
    )
    taken: Counter[UUID] = Counter()
    turns = []
    for row in waiting:
        taken[row["tenant_id"]] += 1
        turns.append((taken[row["tenant_id"]], row["tenant_id"], row["endpoint_id"]))
    turns.sort(key=lambda turn: turn[0])
    return [(tenant_id, endpoint_id) for turn, tenant_id, endpoint_id in turns if turn <= ENDPOINTS_PER_TENANT]


def drain(tenant_id: UUID, endpoint_id: UUID, *, clock: Clock) -> int:
    """Send an endpoint what it is due, in order, until its time is up or it failed a few times; the number of tries."""
    started = clock()
    tries = failures = 0
    for delivery_id in _due_to(tenant_id, endpoint_id, started):
        now = clock()
        if now >= started + DRAIN_FOR or failures >= FAILURES_PER_DRAIN:
            break
        receipt = deliver(tenant_id, delivery_id, now=now)
        if receipt is not None:
            tries += 1
            failures += not receipt.accepted
    return tries


def deliver(tenant_id: UUID, delivery_id: UUID, *, now: datetime) -> Receipt | None:
    """Try one delivery once, outside any transaction. None: another worker has it, or it is not due."""
    claim = _claim(tenant_id, delivery_id, now)
    if claim is None:
        return None
    at = int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "Understudy-Webhooks/1",
        "webhook-id": str(claim.event_id),
        "webhook-timestamp": str(at),
        "webhook-signature": sign(claim.secret, message_id=str(claim.event_id), at=at, body=claim.body),
    }
    receipt = post(claim.url, body=claim.body, headers=headers, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    with acting_for(tenant_id):
        _settle(claim, receipt, now)
    return receipt


def render_event(event: Event) -> bytes:
    """The message's body: what happened, when, and the ids, figures and names of it."""
    at = event.at.astimezone(UTC).isoformat()
    return orjson.dumps({"type": event.kind, "timestamp": at, "data": {**event.data, "id": event.subject_id}})


def _fan_out_for(tenant_id: UUID, now: datetime) -> int:
    made = 0
    while True:
        with acting_for(tenant_id):
            events = list(Event.objects.filter(fanned_out_at=None).order_by("at")[:FAN_OUT_BATCH])
            endpoints = list(WebhookEndpoint.objects.filter(disabled_at=None))
            rows = [
                WebhookDelivery(tenant_id=tenant_id, endpoint=endpoint, event=event, due_at=now)
                for event in events
                for endpoint in endpoints
                if _wants(endpoint, event)
            ]
            WebhookDelivery.objects.bulk_create(rows, ignore_conflicts=True, batch_size=FAN_OUT_BATCH)
            ids = [event.id for event in events]
            Event.objects.filter(id__in=ids, fanned_out_at=None).update(fanned_out_at=now)
        made += len(rows)
        if len(events) < FAN_OUT_BATCH:
            return made


def _wants(endpoint: WebhookEndpoint, event: Event) -> bool:
    return endpoint.created_at <= event.at and (not endpoint.kinds or event.kind in endpoint.kinds)


def _due_to(tenant_id: UUID, endpoint_id: UUID, now: datetime) -> list[UUID]:
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    with acting_for(tenant_id):
        due = WebhookDelivery.objects.filter(free, endpoint_id=endpoint_id, status=State.DUE, due_at__lte=now)
        return list(due.order_by("due_at", "event__at").values_list("id", flat=True)[:DELIVERIES_PER_ENDPOINT])


def _claim(tenant_id: UUID, delivery_id: UUID, now: datetime) -> Claim | None:
    free = Q(claimed_until=None) | Q(claimed_until__lt=now)
    until = now + LEASE
    with acting_for(tenant_id):
        due = WebhookDelivery.objects.filter(free, id=delivery_id, status=State.DUE, due_at__lte=now)
        if not due.update(claimed_until=until, attempts=F("attempts") + 1):
            return None
        row = WebhookDelivery.objects.select_related("endpoint", "event").get(id=delivery_id)
        secret = open_sealed(
            _secret_key(), bytes(row.endpoint.secret_sealed), context=_context(tenant_id, row.endpoint_id)
        )
        return Claim(
            tenant_id=tenant_id,
            delivery_id=row.id,
            endpoint_id=row.endpoint_id,
            event_id=row.event_id,
            attempt=row.attempts,
            until=until,
            url=row.endpoint.url,
            body=render_event(row.event),
            secret=secret.decode(),
        )


def _settle(claim: Claim, receipt: Receipt, now: datetime) -> None:
    """Write down how it went, unless the claim ran out and another worker has the delivery."""
    mine = WebhookDelivery.objects.filter(
        id=claim.delivery_id, status=State.DUE, attempts=claim.attempt, claimed_until=claim.until
    )
    if receipt.accepted:
        if mine.update(status=State.DELIVERED, last_status=receipt.status, delivered_at=now, claimed_until=None):
            WebhookEndpoint.objects.filter(id=claim.endpoint_id).update(straight_failures=0)
        return
    changes = _next_try(claim.attempt, now)
    if mine.update(last_status=receipt.status, claimed_until=None, **changes):
        _count_failure(claim, receipt, now)


def _next_try(attempt: int, now: datetime) -> dict[str, object]:
    if attempt > len(RETRY_AFTER):
        return {"status": State.EXHAUSTED}
    return {"due_at": now + RETRY_AFTER[attempt - 1]}


def _count_failure(claim: Claim, receipt: Receipt, now: datetime) -> None:
    endpoint = WebhookEndpoint.objects.filter(id=claim.endpoint_id)
    if claim.attempt >= COUNTS_FROM_ATTEMPT:
        endpoint.update(straight_failures=F("straight_failures") + 1)
    found = endpoint.get()
    if receipt.status == GONE:
        disable_endpoint(found, actor="system", now=now, reason="gone")
    elif found.straight_failures >= STRAIGHT_FAILURES:
        disable_endpoint(found, actor="system", now=now, reason="straight_failures")


def _secret_key() -> bytes:
    return purpose_key(data_key_in_force(), "webhooks")


def _context(tenant_id: UUID, endpoint_id: UUID) -> str:
    return f"{tenant_id}/tenants_webhookendpoint/secret/{endpoint_id}/1"
