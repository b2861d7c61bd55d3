"""Puts spool records into PostgreSQL: in batches, once per call id, and never losing one to another's fault."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import DatabaseError, IntegrityError

from ingestion.core.calls import CallRecord
from ingestion.erase import await_erasures, is_erased
from ingestion.models import Call, ParkedRecord, Payload
from tenants.scope import acting_for

log = logging.getLogger(__name__)

Pricer = Callable[[CallRecord], Decimal | None]

CONVERTED = {"id", "tenant_id", "key_id", "at", "subject_hmac", "request_sealed", "response_sealed"}
COPIED = [name for name in CallRecord.__struct_fields__ if name not in CONVERTED]
# classes of SQLSTATE that blame no value: connection, transaction state, rolled back (deadlock), resources, in use,
# operator's intervention, system
PASSING = {"08", "25", "40", "53", "55", "57", "58"}
NOBODY = UUID(int=0)
LENGTHS = {"asked_model": 120, "answered_model": 120, "reason": 60, "adapter": 160, "finish": 20}


def store_calls(records: Sequence[CallRecord], *, price: Pricer, now: datetime) -> int:
    """Store a batch; gives how many records are parked. Safe to run twice on the same records.

    A tenant's records go in one transaction. Where that fails on a value, they go one by one, and the one that cannot
    be stored is parked with its reason. Raises DatabaseError when the database is at fault: nothing is to be committed.
    """
    parked = 0
    by_tenant: dict[str, list[CallRecord]] = defaultdict(list)
    for record in records:
        by_tenant[record.tenant_id].append(record)
    for tenant, theirs in by_tenant.items():
        parked += _store_for(tenant, theirs, price=price, now=now)
    return parked


def unpark(*, price: Pricer) -> tuple[int, int]:
    """Try every parked record again, once what was wrong is mended; gives how many are stored, and how many stay.

    Safe to run twice, and beside the feed. Raises DatabaseError when the database is at fault.
    """
    stored = left = 0
    for row_id, tenant_id in ParkedRecord.across_tenants.order_by("id").values_list("id", "tenant_id"):
        with acting_for(tenant_id):
            await_erasures()  # before the row's lock, as an erasure does
            row = ParkedRecord.objects.select_for_update().filter(id=row_id).first()
            if row is None:  # another was at it, or an erasure
                continue
            if _takes(row, price):
                row.delete()
                stored += 1
            else:
                left += 1
    return stored, left


def _takes(row: ParkedRecord, price: Pricer) -> bool:
    try:
        record = msgspec.msgpack.decode(row.record, type=CallRecord)
        if UUID(record.tenant_id) != row.tenant_id:
            return False
        _insert(row.tenant_id, [record], price)
    except (msgspec.MsgspecError, ValueError, TypeError, DatabaseError) as error:
        if isinstance(error, DatabaseError) and _is_away(error):
            raise
        return False
    return True


def _store_for(tenant: str, records: list[CallRecord], *, price: Pricer, now: datetime) -> int:
    try:
        _insert(UUID(tenant), records, price)
        return 0
    except (ValueError, TypeError, IntegrityError) as error:
        log.warning("a batch of %d records was refused: %s", len(records), type(error).__name__)
    except DatabaseError as error:
        if _is_away(error):
            raise
        log.warning("a batch of %d records was refused: %s", len(records), type(error).__name__)
    return sum(_store_or_park(tenant, record, price=price, now=now) for record in records)


def _store_or_park(tenant: str, record: CallRecord, *, price: Pricer, now: datetime) -> int:
    try:
        _insert(UUID(tenant), [record], price)
        return 0
    except (ValueError, TypeError, DatabaseError) as error:
        if isinstance(error, DatabaseError) and _is_away(error):
            raise
        with acting_for(_whose(tenant)):
            ParkedRecord.objects.create(
                reason=type(error).__name__, parked_at=now, record=msgspec.msgpack.encode(record)
            )
        return 1


def _whose(tenant: str) -> UUID:
    """The tenant that a record names, or nobody."""
    try:
        return UUID(tenant)
    except ValueError:
        return NOBODY


def _is_away(error: DatabaseError) -> bool:
    """Whether the database, not a value, is at fault: the driver names no SQLSTATE, or one that passes."""
    code = getattr(error.__cause__, "sqlstate", None)
    return code is None or code[:2] in PASSING


def _insert(tenant_id: UUID, records: list[CallRecord], price: Pricer) -> None:
    with acting_for(tenant_id):
        erased = is_erased([record.subject_hmac for record in records if record.subject_hmac])
        kept = [record for record in records if not (record.subject_hmac and record.subject_hmac in erased)]
        calls = [_call(tenant_id, record, price) for record in kept]
        payloads = [_payload(tenant_id, record) for record in kept if record.request_sealed is not None]
        Call.objects.bulk_create(calls, ignore_conflicts=True, batch_size=500)
        Payload.objects.bulk_create(payloads, ignore_conflicts=True, batch_size=500)


def _call(tenant_id: UUID, record: CallRecord, price: Pricer) -> Call:
    facts = {name: getattr(record, name) for name in COPIED}
    for name, length in LENGTHS.items():
        facts[name] = facts[name].replace("\x00", "")[:length]
    return Call(
        id=UUID(record.id),
        tenant_id=tenant_id,
        key_id=UUID(record.key_id),
        at=datetime.fromtimestamp(record.at, UTC),
        teacher_cost=price(record),
        currency=settings.CURRENCY,
        content_kept=record.request_sealed is not None,
        subject_hmac=record.subject_hmac,
        **facts,
    )


def _payload(tenant_id: UUID, record: CallRecord) -> Payload:
    return Payload(
        call_id=UUID(record.id),
        tenant_id=tenant_id,
        request_sealed=record.request_sealed,
        response_sealed=record.response_sealed,
    )
