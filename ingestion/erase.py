"""Forgets one person on request, in everything the rows lead to, and sees to it that nothing of theirs comes back.

A person is known only by the HMAC of the `user` or `metadata.user_id` that a caller sent. Erasing deletes the bodies of
their calls and the examples made of them, cuts the tie between the calls' facts and the person, and leaves a tombstone:
what still lies in a spool, or returns with a restored backup, is refused where it is written.
"""

import hmac
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec
from django.db import DatabaseError, connection
from django.db.models import QuerySet

from ingestion.core.calls import CallRecord
from ingestion.models import Call, ErasedSubject, Erasure, Example, ParkedRecord, Payload
from tenants.core.clock import Clock
from tenants.data_keys import purpose_key
from tenants.events import record_event
from tenants.provision import data_key_in_force
from tenants.scope import acting_for, tenant_in_force

LOCK_CLASS = 0x7573  # our advisory locks' first half; the second is the tenant's
LONGEST_SUBJECT = 10_000  # characters that a person's name may have in a request to forget them
MOST_OPEN = 10_000  # requests of one tenant that may wait to be carried out
BATCH = 1000  # calls of which one transaction forgets the person: so long does the tenant's feed wait at most


class UnableToErase(ValueError):
    """No subject was named, or too many are waiting to be forgotten."""


def request_erasure(subject: str, *, actor: str, clock: Clock) -> Erasure:
    """Have the tenant in force forget a person, given as callers sent them. Raises UnableToErase.

    From here on nothing of theirs is written any more. What there is goes with `carry_out_erasures`. Asking again is
    safe: while the first request is at work it is the answer, and later it removes only what a backup brought back.
    """
    if not subject:
        raise UnableToErase("name the subject to erase")
    digest = hash_subject(purpose_key(data_key_in_force(), "subjects"), subject)
    with acting_for(tenant_in_force()):
        _lock("pg_advisory_xact_lock")  # waits for writers that looked for the tombstone before it was there
        if Erasure.objects.filter(finished_at=None).count() >= MOST_OPEN:
            raise UnableToErase(f"{MOST_OPEN:,} people are waiting to be forgotten; ask again in some minutes")
        now = clock()
        _, is_new = ErasedSubject.objects.get_or_create(
            subject_hmac=digest, defaults={"tenant_id": tenant_in_force(), "erased_at": now}
        )
        return _ask_for(digest, is_new=is_new, actor=actor, now=now)


def erasures_open() -> list[UUID]:
    """The tenants with erasures that are not carried out yet, suspended ones too: a person does not wait for a bill."""
    return list(Erasure.across_tenants.filter(finished_at=None).values_list("tenant_id", flat=True).distinct())


def carry_out_erasures(tenant_id: UUID, *, clock: Clock) -> list[Erasure]:
    """Carry out what a tenant was asked to forget, a thousand calls a transaction; gives the finished ones.

    Safe to run twice at once and to be killed: each transaction says how far it came, and another look goes on there.
    One that fails does not keep those behind it waiting; the last failure is raised at the end.
    """
    with acting_for(tenant_id):
        wanted = list(Erasure.objects.filter(finished_at=None).order_by("requested_at", "id"))
    failure: DatabaseError | None = None
    for erasure in wanted:
        try:
            _carry_out(erasure, clock)
        except DatabaseError as error:
            failure = error
    if failure is not None:
        raise failure
    return wanted


def reapply_erasures(tenant_id: UUID, *, clock: Clock) -> int:
    """Erase again what every tombstone of a tenant names, after a restore; gives how many subjects had come back."""
    with acting_for(tenant_id):
        _lock("pg_advisory_xact_lock")
        tombstones = set(ErasedSubject.objects.values_list("subject_hmac", flat=True))
        back = set(Call.objects.filter(subject_hmac__in=tombstones).values_list("subject_hmac", flat=True))
        back |= tombstones & {record.subject_hmac for _, record in _parked()}
        for digest in sorted(back):
            _ask_for(digest, is_new=False, actor="system", now=clock())
    carry_out_erasures(tenant_id, clock=clock)
    return len(back)


def hash_subject(key: bytes, subject: str) -> str:
    """The name a subject goes by in our rows: HMAC-SHA256 in 64 hex digits, as the gateway computes it."""
    return hmac.new(key, subject.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def is_erased(hmacs: Collection[str]) -> set[str]:
    """Which of these subjects the tenant in force has erased. Call it in the transaction that writes their data:
    an erasure then waits for that transaction, and finds what it wrote.
    """
    if not hmacs:
        return set()
    await_erasures()
    found = ErasedSubject.objects.filter(subject_hmac__in=set(hmacs))
    return set(found.values_list("subject_hmac", flat=True))


def calls_to_erase() -> QuerySet[Call, UUID]:
    """The ids of the calls whose person is to be forgotten and whose turn has not come yet: nothing is made of them."""
    tombstones = ErasedSubject.objects.values("subject_hmac")
    return Call.objects.filter(subject_hmac__in=tombstones).values_list("id", flat=True)


def held_calls(call_ids: Collection[UUID]) -> set[UUID]:
    """Which of these calls still have their bodies, and may keep them. Ask in the transaction that writes what was read
    from them in an earlier one, or an erasure in between would be undone.
    """
    await_erasures()
    wanted = list(call_ids)
    held: set[UUID] = set()
    for start in range(0, len(wanted), 1000):
        found = Payload.objects.filter(call_id__in=wanted[start : start + 1000]).exclude(call_id__in=calls_to_erase())
        held.update(found.values_list("call_id", flat=True))
    return held


def await_erasures() -> None:
    """Wait for an erasure of the tenant in force that is under way, and let none begin before this transaction ends."""
    _lock("pg_advisory_xact_lock_shared")


def _ask_for(digest: str, *, is_new: bool, actor: str, now: datetime) -> Erasure:
    """The subject's open erasure, made if there is none. The lock is held, so no two are made."""
    asked = {"tenant_id": tenant_in_force(), "is_new": is_new, "requested_by": actor, "requested_at": now}
    erasure, _ = Erasure.objects.get_or_create(subject_hmac=digest, finished_at=None, defaults=asked)
    return erasure


def _carry_out(erasure: Erasure, clock: Clock) -> Erasure:
    while erasure.finished_at is None:
        with acting_for(erasure.tenant_id):
            _lock("pg_advisory_xact_lock")
            erasure.refresh_from_db()  # another may have been at it
            if erasure.finished_at is None and _remove_batch(erasure) < BATCH:
                _finish(erasure, clock())
            erasure.save()
    return erasure


def _remove_batch(erasure: Erasure) -> int:
    """Forget the person in some calls, and count it on the erasure; gives how many calls those were."""
    theirs = Call.objects.filter(subject_hmac=erasure.subject_hmac)
    call_ids = list(theirs.values_list("id", flat=True)[:BATCH])
    examples = Example.objects.filter(call_id__in=call_ids)
    learnt = examples.order_by("dataset_id").values_list("dataset_id", flat=True).distinct()
    erasure.datasets = sorted({*erasure.datasets, *map(str, learnt)})
    erasure.examples += examples.delete()[0]
    erasure.payloads += Payload.objects.filter(call_id__in=call_ids).delete()[0]
    erasure.calls += Call.objects.filter(id__in=call_ids).update(subject_hmac="")
    return len(call_ids)


def _finish(erasure: Erasure, now: datetime) -> None:
    """The last of it. The clock was read under the lock: whoever read the person's rows before, under
    `await_erasures`, began earlier than the event's time.
    """
    theirs = [row_id for row_id, record in _parked() if record.subject_hmac == erasure.subject_hmac]
    erasure.parked += ParkedRecord.objects.filter(id__in=theirs).delete()[0]
    erasure.finished_at = now
    if erasure.is_new or erasure.calls or erasure.parked:
        record_event(
            "subject.erased",
            now=now,
            actor=erasure.requested_by,
            calls=erasure.calls,
            payloads=erasure.payloads,
            examples=erasure.examples,
            parked=erasure.parked,
            datasets=erasure.datasets,
        )


def _parked() -> Iterator[tuple[int, CallRecord]]:
    """The tenant's parked records that can be read; the others name no subject we could compare."""
    return _readable(ParkedRecord.objects.all())


def _readable(parked: Iterable[ParkedRecord]) -> Iterator[tuple[int, CallRecord]]:
    for row in parked:
        try:
            yield row.id, msgspec.msgpack.decode(row.record, type=CallRecord)
        except (msgspec.MsgspecError, ValueError):
            continue


def _lock(function: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s::int, hashtext(%s))", [LOCK_CLASS, str(tenant_in_force())])
