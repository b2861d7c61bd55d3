"""Asks the other one afterwards: the student what the teacher answered (shadow), or the teacher (live).

Data flow: calls that the gateway marked at random → claimed by an `Audit` row, unique per call → the request opened →
the other one asked, off the request path → both answers held against each other, canonical form against canonical form
→ accepted, differs, cost. A teacher's answer that cannot be compared differs from every answer. No text is kept.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import aiohttp
import msgspec
from django.conf import settings

from ingestion.core.agreement import canonical, differs
from ingestion.core.calls import Answer, Arm, Kind
from ingestion.core.templates import extract_query
from ingestion.models import Call, Payload
from ingestion.payloads import Pair, UnableToReadPair, read_pair
from ingestion.prices import PriceBook
from serving.core.accept import Accept, accept
from serving.core.estimate import estimate_usage
from serving.core.gates import Gate, StudentSpec
from serving.evaluate import NO_DRAFT, cache_salt, draft_patiently
from serving.models import Audit, Rollout
from serving.student import UnableToDraft
from serving.teacher import Teacher, UnableToAsk, ask_teacher
from tenants.addresses import AddressGuard
from tenants.models import ProviderCredential
from tenants.provision import data_key_in_force, open_credential
from tenants.scope import acting_for

BATCH = 64  # at work at once for one rollout: live calls need the replicas too
AT_ONCE = 8
SLICE = 16  # carried out before anything is written down; at its slowest within a task's time limit
LEASE = timedelta(minutes=30)  # longer than a task may take
TRIES = 3
BUDGET = timedelta(seconds=20)  # after which a worker turns to the next rollout


@dataclass(frozen=True, slots=True)
class Job:
    """One claimed audit with all that is needed to carry it out."""

    audit: Audit
    pair: Pair = field(repr=False)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all audits of one rollout share."""

    spec: StudentSpec
    gate: Gate
    kind: Kind
    salt: str
    teachers: dict[UUID | str, Teacher] = field(repr=False)  # by credential, and by provider for calls that name none


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit found. `error` is a word where nothing could be found."""

    accepted: bool | None = None
    differs: bool | None = None
    score: float | None = None
    cost: Decimal = Decimal(0)
    student_ms: float = 0.0
    error: str = ""


def audits_due(tenant_id: UUID) -> list[UUID]:
    """The tenant's rollouts in play: each may have marked calls waiting."""
    with acting_for(tenant_id):
        return list(Rollout.objects.exclude(state__in=Rollout.OVER).values_list("id", flat=True))


def audit_batches(tenant_id: UUID, rollout_id: UUID, *, clock: Callable[[], datetime]) -> int:
    """Carry out batch after batch, the oldest calls first, until none is waiting or the budget is spent."""
    until, closed = clock() + BUDGET, 0
    while count := audit(tenant_id, rollout_id, now=clock(), is_late=lambda: clock() >= until):
        closed += count
        if clock() >= until:
            break
    return closed


def audit(tenant_id: UUID, rollout_id: UUID, *, now: datetime, is_late: Callable[[], bool] = lambda: False) -> int:
    """Carry out what is marked for one rollout, up to a batch; gives how many audits were looked at.

    A slice at a time: what was found is written down before the next begins, and what nobody has time for any more is
    given back.
    """
    with acting_for(tenant_id):
        rollout = Rollout.objects.select_related("deployment__adapter", "certificate", "workload").get(id=rollout_id)
        if rollout.state in Rollout.OVER:
            return 0
        claimed = _claim_marked(rollout, now) + _claim_lost(rollout, now)
        setting = _setting(rollout)
        jobs, unreadable = _open(claimed)
        book = PriceBook.load(now)
        for lost in unreadable:
            _close(lost, Finding(error="unreadable"), now, final=True)
    for start in range(0, len(jobs), SLICE):
        if start and is_late():
            _give_back(tenant_id, jobs[start:], now)
            return start + len(unreadable)
        _carry_out_slice(tenant_id, setting, jobs[start : start + SLICE], book, now)
    return len(claimed)


def _carry_out_slice(tenant_id: UUID, setting: Setting, jobs: Sequence[Job], book: PriceBook, now: datetime) -> None:
    findings = asyncio.run(_carry_out(setting, jobs, book))
    with acting_for(tenant_id):
        for job, finding in zip(jobs, findings, strict=True):
            _close(job.audit, finding, now)


def _give_back(tenant_id: UUID, jobs: Sequence[Job], now: datetime) -> None:
    """Leave audits to the next look, as if they had not been tried."""
    with acting_for(tenant_id):
        for job in jobs:
            mine = Audit.objects.filter(id=job.audit.id, status=Audit.Status.CLAIMED, attempts=job.audit.attempts)
            mine.update(claimed_until=now - timedelta(seconds=1), attempts=job.audit.attempts - 1)


def _claim_marked(rollout: Rollout, now: datetime) -> list[Audit]:
    """Claim marked calls of this rollout's time by making their audits; a rival worker's claim wins silently."""
    at_work = Audit.objects.filter(rollout=rollout, status=Audit.Status.CLAIMED, claimed_until__gte=now).count()
    room = max(BATCH - at_work, 0)
    known = Audit.objects.filter(rollout=rollout).values("call_id")
    since = Call.objects.filter(
        workload_id=rollout.workload_id, at__gte=rollout.created_at, status=200, complete=True, failovers=0
    ).exclude(id__in=known)
    live = since.filter(wants_audit=True, arm=Arm.STUDENT, adapter=rollout.deployment.adapter.name)
    shadow = since.filter(wants_shadow=True).exclude(arm=Arm.STUDENT)
    wanted = [
        _new(rollout, call, kind, now)
        for kind, calls in ((Audit.Kind.LIVE, live), (Audit.Kind.SHADOW, shadow))
        for call in calls.order_by("at")[:room]
    ]
    Audit.objects.bulk_create(wanted, ignore_conflicts=True)
    return list(Audit.objects.filter(id__in=[one.id for one in wanted]).order_by("call_at"))


def _new(rollout: Rollout, call: Call, kind: str, now: datetime) -> Audit:
    return Audit(
        id=uuid4(),
        tenant_id=rollout.tenant_id,
        rollout=rollout,
        call_id=call.id,
        call_at=call.at,
        kind=kind,
        control=call.arm == Arm.CONTROL,
        claimed_until=now + LEASE,
    )


def _claim_lost(rollout: Rollout, now: datetime) -> list[Audit]:
    """Claim audits whose worker was lost, one by one, by compare-and-set."""
    claimed = []
    lost = Audit.objects.filter(rollout=rollout, status=Audit.Status.CLAIMED, claimed_until__lt=now)
    lost.filter(attempts__gte=TRIES).update(status=Audit.Status.FAILED, error="given_up", done_at=now)
    for one in lost.filter(attempts__lt=TRIES)[:BATCH]:
        mine = Audit.objects.filter(id=one.id, claimed_until=one.claimed_until)
        if mine.update(claimed_until=now + LEASE, attempts=one.attempts + 1):
            one.attempts += 1
            claimed.append(one)
    return claimed


def _setting(rollout: Rollout) -> Setting:
    data_key = data_key_in_force()
    teachers: dict[UUID | str, Teacher] = {}
    for one in ProviderCredential.usual_first():
        teacher = Teacher(one.provider, one.base_url, open_credential(one, data_key))
        teachers[one.id] = teacher
        teachers.setdefault(one.provider, teacher)
    spec = msgspec.convert(rollout.deployment.spec, StudentSpec)
    gate = msgspec.convert(rollout.certificate.gate, Gate)
    return Setting(spec, gate, Kind(spec.kind), cache_salt(data_key), teachers)


def _open(claimed: Sequence[Audit]) -> tuple[list[Job], list[Audit]]:
    data_key = data_key_in_force()
    ids = [one.call_id for one in claimed]
    calls = {call.id: call for call in Call.objects.filter(id__in=ids)}
    payloads = {payload.call_id: payload for payload in Payload.objects.filter(call_id__in=ids)}
    jobs, unreadable = [], []
    for one in claimed:
        try:
            jobs.append(Job(one, read_pair(calls[one.call_id], payloads[one.call_id], data_key)))
        except (KeyError, UnableToReadPair):
            unreadable.append(one)
    return jobs, unreadable


async def _carry_out(setting: Setting, jobs: Sequence[Job], book: PriceBook) -> list[Finding]:
    gate = asyncio.Semaphore(AT_ONCE)
    guard = AddressGuard(allow_private=settings.PROVIDER_ALLOW_PRIVATE)
    guarded = aiohttp.TCPConnector(socket_factory=guard.open_socket)
    async with aiohttp.ClientSession() as replicas, aiohttp.ClientSession(connector=guarded) as teachers:

        async def one(job: Job) -> Finding:
            async with gate:
                if job.audit.kind == Audit.Kind.SHADOW:
                    return await _shadow(setting, job.pair, replicas)
                return await _live(setting, job.pair, teachers, book)

        return list(await asyncio.gather(*map(one, jobs)))


async def _shadow(setting: Setting, pair: Pair, http: aiohttp.ClientSession) -> Finding:
    """Ask the student what the teacher answered; the same gate decides whether it would have been used.

    An answer that comes later than the gateway ever waits would not have been.
    """
    query = extract_query(setting.spec.template, pair.ask)
    made = NO_DRAFT
    try:
        if query is not None:
            made = await draft_patiently(setting.spec, query, http=http, salt=setting.salt)
    except UnableToDraft as error:
        return Finding(error=error.reason)
    verdict = accept(made.answer, made.evidence, setting.gate)
    in_time = made.ms <= settings.STUDENT_TIMEOUT_S * 1000
    return Finding(
        accepted=isinstance(verdict, Accept) and in_time,
        differs=_differs(setting.kind, made.answer, pair.answer),
        score=verdict.score,
        student_ms=made.ms,
    )


async def _live(setting: Setting, pair: Pair, http: aiohttp.ClientSession, book: PriceBook) -> Finding:
    """Ask the teacher what the student answered, with the caller's own bytes."""
    teacher = setting.teachers.get(pair.call.credential_id or pair.call.asked_provider)
    if teacher is None:
        return Finding(error="no_credential")
    try:
        answer = await ask_teacher(teacher, pair.ask, http=http)
    except UnableToAsk as error:
        return Finding(error=error.reason)
    mine = canonical(setting.kind, pair.answer)
    return Finding(
        accepted=True,
        differs=_differs(setting.kind, mine, answer),
        score=pair.call.score,
        cost=_price(book, pair, answer),
    )


def _differs(kind: Kind, mine: str | None, teacher: Answer) -> bool:
    expected = canonical(kind, teacher)
    return expected is None or differs(kind, mine, expected)


def _price(book: PriceBook, pair: Pair, answer: Answer) -> Decimal:
    """What the second answer cost, by length where its usage is not told; 0 where no price is known."""
    call, usage = pair.call, answer.usage or estimate_usage(pair.ask, answer)
    model = book.model_of(call.asked_provider, call.asked_model, answer.model, at=call.at)
    return book.cost(provider=call.asked_provider, model=model, usage=usage, at=call.at) or Decimal(0)


def _close(one: Audit, finding: Finding, now: datetime, *, final: bool = False) -> None:
    """Write a finding down. A passing fault leaves the audit claimed, to be tried again when the claim runs out."""
    passing = finding.error and not final and one.attempts < TRIES
    status = Audit.Status.CLAIMED if passing else Audit.Status.FAILED if finding.error else Audit.Status.DONE
    Audit.objects.filter(id=one.id, status=Audit.Status.CLAIMED, attempts=one.attempts).update(
        status=status,
        claimed_until=now + timedelta(seconds=30) if passing else one.claimed_until,
        accepted=finding.accepted,
        differs=finding.differs,
        score=finding.score,
        cost=finding.cost,
        student_ms=finding.student_ms,
        error=finding.error,
        done_at=None if passing else now,
    )
