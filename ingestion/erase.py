"""Forgets one person on request, in everything the rows lead to, and sees to it that nothing of theirs comes back.

A person is known only by the HMAC of the `user` or `metadata.user_id` that a caller sent. Erasing deletes the bodies of
their calls and the examples made of them, cuts the tie between the calls' facts and the person, and leaves a tombstone:
what still lies in a spool, or returns with a restored backup, is refused where it is written.
"""

import hmac
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from uuid import UUID

import msgspec
from django.db import connection

from ingestion.core.calls import CallRecord
from ingestion.models import Call, ErasedSubject, Example, ParkedRecord, Payload
from tenants.core.clock import Clock
from tenants.data_keys import purpose_key
from tenants.events import record_event
from tenants.provision import data_key_in_force
from tenants.scope import acting_for, tenant_in_force

LOCK_CLASS = 0x7573  # our advisory locks' first half; the second is the tenant's


class UnableToErase(ValueError):
    """No subject was named."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure removed. Adapters trained on `dataset_ids` are tainted: see `training.taint`."""

    calls: int
    payloads: int
    examples: int
    parked: int
    dataset_ids: tuple[UUID, ...]
    is_new: bool  # whether this was the first request for the subject


def erase_subject(subject: str, *, actor: str, clock: Clock) -> Erasure:
    """Erase what the tenant in force holds of a person, given as callers sent them. Raises UnableToErase.

    All or nothing, and safe to repeat: a second time removes only what a backup brought back. The clock is read once
    the lock is held: whoever read the person's rows before, under `await_erasures`, began earlier than this time.
    """
    if not subject:
        raise UnableToErase("name the subject to erase")
    digest = hash_subject(purpose_key(data_key_in_force(), "subjects"), subject)
    with acting_for(tenant_in_force()):
        _lock("pg_advisory_xact_lock")  # waits for writers that looked for the tombstone before it was there
        now = clock()
        _, is_new = ErasedSubject.objects.get_or_create(
            subject_hmac=digest, defaults={"tenant_id": tenant_in_force(), "erased_at": now}
        )
        erasure = _remove(digest, is_new=is_new)
        if is_new or erasure.calls or erasure.parked:
            _record(erasure, actor=actor, now=now)
    return erasure


def reapply_erasures(tenant_id: UUID, *, clock: Clock) -> int:
    """Erase again what every tombstone of a tenant names, after a restore; gives how many subjects had come back."""
    back = 0
    with acting_for(tenant_id):
        _lock("pg_advisory_xact_lock")
        now = clock()
        for tombstone in ErasedSubject.objects.order_by("id"):
            erasure = _remove(tombstone.subject_hmac, is_new=False)
            if erasure.calls or erasure.parked:
                _record(erasure, actor="system", now=now)
                back += 1
    return back


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


def held_calls(call_ids: Collection[UUID]) -> set[UUID]:
    """Which of these calls still have their bodies. Ask in the transaction that writes what was read from them in an
    earlier one, or an erasure in between would be undone.
    """
    await_erasures()
    wanted = list(call_ids)
    held: set[UUID] = set()
    for start in range(0, len(wanted), 1000):
        found = Payload.objects.filter(call_id__in=wanted[start : start + 1000])
        held.update(found.values_list("call_id", flat=True))
    return held


def await_erasures() -> None:
    """Wait for an erasure of the tenant in force that is under way, and let none begin before this transaction ends."""
    _lock("pg_advisory_xact_lock_shared")


def _remove(digest: str, *, is_new: bool) -> Erasure:
    calls = Call.objects.filter(subject_hmac=digest)
    examples = Example.objects.filter(call_id__in=calls.values("id"))
    dataset_ids = tuple(examples.order_by("dataset_id").values_list("dataset_id", flat=True).distinct())
    return Erasure(
        examples=examples.delete()[0],
        payloads=Payload.objects.filter(call_id__in=calls.values("id")).delete()[0],
        parked=_remove_parked(digest),
        calls=calls.update(subject_hmac=""),  # last: the statements above find their rows by it
        dataset_ids=dataset_ids,
        is_new=is_new,
    )


def _remove_parked(digest: str) -> int:
    parked = ParkedRecord.objects.filter(tenant_ref=str(tenant_in_force()))
    theirs = [row_id for row_id, record in _readable(parked) if record.subject_hmac == digest]
    return int(ParkedRecord.objects.filter(id__in=theirs).delete()[0])


def _readable(parked: Iterable[ParkedRecord]) -> Iterator[tuple[int, CallRecord]]:
    for row in parked:
        try:
            yield row.id, msgspec.msgpack.decode(row.record, type=CallRecord)
        except (msgspec.MsgspecError, ValueError):
            continue  # it names no subject we could compare


def _record(erasure: Erasure, *, actor: str, now: datetime) -> None:
    record_event(
        "subject.erased",
        now=now,
        actor=actor,
        calls=erasure.calls,
        payloads=erasure.payloads,
        examples=erasure.examples,
        parked=erasure.parked,
        datasets=[str(dataset_id) for dataset_id in erasure.dataset_ids],
    )


def _lock(function: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s::int, hashtext(%s))", [LOCK_CLASS, str(tenant_in_force())])
