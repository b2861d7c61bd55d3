"""Replays a file of real queries and answers through the product's own code, and reports what it would have given.

Data flow: rows, shuffled by a seed → the first part becomes calls: sealed into a spool, drained by the feed → workload
discovered → dataset frozen → a run carried out by the trainer → adapter loaded into real replicas → evaluated and
certified there → every row of the last part, never used before, put before `choose`, `draft` and `accept` → figures.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import aiohttp
import msgspec
from django.conf import settings
from django.db import connection

from config.replay_file import ReplayRow, request_body, response_body
from ingestion.core.agreement import canonical, differs
from ingestion.core.calls import Arm, CallRecord, Dialect, Kind, body_context
from ingestion.core.dialects import parse_answer, parse_ask
from ingestion.core.fingerprint import fingerprint
from ingestion.curate import UnableToCurate, curate
from ingestion.discover import discover_workloads
from ingestion.models import Dataset, Workload
from ingestion.promises import state_promise
from ingestion.spool import Spool, SpoolReader
from serving.certify_adapter import certify_adapter
from serving.core.accept import Accept, accept
from serving.core.certify import UnableToCertify, clopper_pearson_interval
from serving.core.gates import Draft, Gate, StudentSpec
from serving.core.routing import choose
from serving.core.snapshot import RouteEntry
from serving.deploy import deploy, open_deployments
from serving.evaluate import UnableToEvaluate, cache_salt, draft_patiently, evaluate
from serving.feed import Feed
from serving.models import Certificate, Deployment, Evaluation
from serving.student import UnableToDraft
from tenants.core.sealing import seal
from tenants.models import Tenant
from tenants.provision import data_key_in_force, sign_up, store_credential
from tenants.scope import acting_for
from training.launch import carry_out, queue_run
from training.models import Adapter, TrainingRun

AT_ONCE = 16
TELL_SECONDS = 15.0
Tell = Callable[[str], None]


class UnableToReplay(Exception):
    """A stage could not go on; the message says which and why, for people."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay and on which terms. Prices are per million tokens in the settings' currency."""

    rows: Sequence[ReplayRow]
    rung: str
    alpha: float
    delta: float
    promise: str
    live_share: float
    seed: int
    model: str
    input_price: Decimal
    output_price: Decimal
    hourly_cost: Decimal


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows that were never used before."""

    calls: int
    answered: int  # by the student
    differing: int
    agreement_all: float  # had the student answered everything
    reasons: dict[str, int]
    student_seconds: float
    read_tokens: int
    written_tokens: int
    deferred_read: int
    deferred_written: int


def replay(plan: Plan, *, tell: Tell, clock: Callable[[], datetime]) -> dict[str, object]:
    """Run the whole pipeline on a fresh tenant; gives the report. Raises UnableToReplay."""
    started = time.monotonic()
    rows = list(plan.rows)
    random.Random(plan.seed).shuffle(rows)
    held_back = max(int(len(rows) * plan.live_share), 1)
    history, live = rows[:-held_back], rows[-held_back:]
    tenant = _make_tenant(clock())
    try:
        return _replay(tenant, plan, history, live, tell=tell, clock=clock, started=started)
    except (UnableToEvaluate, UnableToCertify) as error:
        raise UnableToReplay(f"the evaluation did not come to its end: {error}") from error
    finally:
        with acting_for(tenant):  # whatever became of it, no stage is to go on with it
            Tenant.objects.update(status=Tenant.Status.SUSPENDED)


def _replay(
    tenant: UUID,
    plan: Plan,
    history: Sequence[ReplayRow],
    live: Sequence[ReplayRow],
    *,
    tell: Tell,
    clock: Callable[[], datetime],
    started: float,
) -> dict[str, object]:
    tell(f"capturing {len(history)} calls")
    _capture(tenant, history, plan, clock())
    workload = _discover(tenant, plan, clock())
    tell(f"found “{workload.name}” ({workload.kind}); curating")
    dataset = _freeze(tenant, workload, clock())
    tell(f"dataset v{dataset.version}: {_listed(dataset.counts)}; left out: {_listed(dataset.left_out) or 'nothing'}")
    tell(f"training a {plan.rung}")
    with _told(tenant, tell):
        adapter, run = _train(tenant, dataset, plan, clock)
    tell(f"trained in {run.seconds:.0f} s; evaluating on the replica that answers")
    certificate, evaluation, deployment = _judge(tenant, adapter, clock)
    tell(f"agreement: student {evaluation.arms['student']:.3f}, base {evaluation.arms['base']:.3f}")
    outcome = None
    if certificate.certified:
        tell(f"certified at threshold {certificate.threshold:.3f}; answering {len(live)} calls never used before")
        outcome = asyncio.run(_serve(tenant, plan, workload, deployment, certificate, live))
    return {
        "rows": len(history) + len(live),
        "tenant": str(tenant),
        "workload_kind": workload.kind,
        "dataset": {"counts": dataset.counts, "left_out": dataset.left_out, "hash": dataset.content_hash},
        "training": {"rung": plan.rung, "seconds": run.seconds, "cost": str(run.cost), "metrics": run.metrics},
        "evaluation": evaluation.arms,
        "certificate": _certificate_report(certificate),
        "live": _live_report(plan, outcome) if outcome else None,
        "seconds": round(time.monotonic() - started, 1),
    }


def _make_tenant(now: datetime) -> UUID:
    name = f"replay {now:%Y-%m-%d %H:%M:%S.%f}"
    tenant, _ = sign_up(
        company=name, email=f"replay-{now.timestamp()}@localhost", password=str(now.timestamp()), now=now
    )
    with acting_for(tenant.id):
        Tenant.objects.update(savings_share=0)  # nobody is asked for anything after a replay
        earlier = now - timedelta(days=365)  # the stance under which the file's answers came in
        store_credential(
            provider="openai",
            base_url="http://127.0.0.1:9",
            secret="none",
            stance="internal_only",
            actor="replay",
            now=earlier,
        )
    return tenant.id


def _capture(tenant: UUID, rows: Sequence[ReplayRow], plan: Plan, now: datetime) -> None:
    """Through a real spool and the real feed, a second apart, the last one now."""
    with acting_for(tenant):
        data_key = data_key_in_force()
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), segment_bytes=32_000_000, max_bytes=4_000_000_000)
        for place, row in enumerate(rows):
            at = now - timedelta(seconds=len(rows) - place)
            spool.append(_record(tenant, row, plan, at, data_key, place))
        spool.close()
        with SpoolReader(Path(folder)) as reader:
            feed = Feed(reader, snapshot_file=Path(folder) / "snapshot", key=b"")
            while feed.drain(now):
                pass


def _record(tenant: UUID, row: ReplayRow, plan: Plan, at: datetime, data_key: bytes, place: int) -> CallRecord:
    call_id = str(
        UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62) | (tenant.int >> 80 << 20) | place)
    )
    request = request_body(row, model=plan.model)
    response = response_body(row, model=plan.model, name=str(place), at=int(at.timestamp()))
    ask, answer = parse_ask(Dialect.OPENAI, request), parse_answer(Dialect.OPENAI, response)
    return CallRecord(
        id=call_id,
        tenant_id=str(tenant),
        key_id=str(tenant),
        at=at.timestamp(),
        dialect=Dialect.OPENAI,
        asked_model=plan.model,
        answered_model=plan.model,
        fingerprint=fingerprint(ask),
        arm=Arm.TEACHER,
        finish=answer.finish,
        input_tokens=answer.usage.input_tokens if answer.usage else 0,
        output_tokens=answer.usage.output_tokens if answer.usage else 0,
        request_sealed=seal(data_key, request, context=body_context(call_id, str(tenant), "request")),
        response_sealed=seal(data_key, response, context=body_context(call_id, str(tenant), "response")),
    )


def _discover(tenant: UUID, plan: Plan, now: datetime) -> Workload:
    discover_workloads(tenant, now=now)
    with acting_for(tenant):
        workload: Workload | None = Workload.objects.order_by("-found_at").first()
        if workload is None:
            raise UnableToReplay("no workload was found: 40 answered queries of one shape are needed")
        state_promise(
            workload,
            alpha=plan.alpha,
            delta=plan.delta,
            promise=plan.promise,
            approval=Workload.Approval.AUTOMATIC,
            actor="replay",
            now=now,
        )
        if workload.kind == Kind.TEXT or (plan.rung == "head" and workload.kind != Kind.LABEL):
            raise UnableToReplay(f"answers are of kind {workload.kind}, which a {plan.rung} student cannot give")
        return Workload.objects.get(id=workload.id)


def _freeze(tenant: UUID, workload: Workload, now: datetime) -> Dataset:
    try:
        return curate(tenant, workload.id, now=now, min_pairs=50)
    except UnableToCurate as error:
        raise UnableToReplay(f"too few usable pairs: {error.missing} more are needed") from error


def _train(tenant: UUID, dataset: Dataset, plan: Plan, clock: Callable[[], datetime]) -> tuple[Adapter, TrainingRun]:
    run = queue_run(dataset, rung=plan.rung, now=clock())
    if run is None:
        raise UnableToReplay("a run of this dataset is open already")
    carry_out(tenant, run.id, clock=clock)
    with acting_for(tenant):
        run = TrainingRun.objects.get(id=run.id)
        if run.status != TrainingRun.Status.SUCCEEDED:
            raise UnableToReplay(f"training {run.status}: {run.error}")
        return Adapter.objects.get(run=run), run


@contextmanager
def _told(tenant: UUID, tell: Tell) -> Iterator[None]:
    """Say how far the tenant's training is, now and then, while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(TELL_SECONDS):
            with acting_for(tenant):
                run = TrainingRun.objects.order_by("-created_at").first()
            if run is not None and run.progress.get("steps"):
                tell(f"  step {run.progress['step']} of {run.progress['steps']}, loss {run.progress['loss']:.3f}")
        connection.close()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _judge(tenant: UUID, adapter: Adapter, clock: Callable[[], datetime]) -> tuple[Certificate, Evaluation, Deployment]:
    open_deployments(tenant, now=clock())
    with acting_for(tenant):
        deployment = Deployment.objects.get(adapter=adapter)
    if not deploy(tenant, deployment.id, now=clock()):
        with acting_for(tenant):
            raise UnableToReplay(f"the adapter was not loaded: {Deployment.objects.get(id=deployment.id).error}")
    evaluation = evaluate(tenant, deployment.id, clock=clock)
    if evaluation is None:
        raise UnableToReplay("another process evaluates this adapter")
    return certify_adapter(tenant, evaluation.id, now=clock()), evaluation, deployment


async def _serve(
    tenant: UUID,
    plan: Plan,
    workload: Workload,
    deployment: Deployment,
    certificate: Certificate,
    rows: Sequence[ReplayRow],
) -> Outcome:
    """Decide each row as the gateway would at full share."""
    spec = msgspec.convert(deployment.spec, StudentSpec)
    gate = msgspec.convert(certificate.gate, Gate)
    route = RouteEntry(
        workload_id=str(workload.id), kind=workload.kind, state="full", student_share=1.0, student=spec, gate=gate
    )
    slots = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as http:

        async def one(row: ReplayRow) -> "Decided":
            async with slots:
                return await _decide(route, row, plan, http=http, salt=cache_salt(tenant.bytes))

        started = time.monotonic()
        decided = await asyncio.gather(*map(one, rows))
        return _add_up(decided, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Decided:
    """One row's fate."""

    reason: str  # accepted, or why the teacher was asked
    differs: bool
    read: int
    written: int


async def _decide(route: RouteEntry, row: ReplayRow, plan: Plan, *, http: aiohttp.ClientSession, salt: str) -> Decided:
    kind = Kind(route.kind)
    ask = parse_ask(Dialect.OPENAI, request_body(row, model=plan.model))
    teacher = parse_answer(Dialect.OPENAI, response_body(row, model=plan.model, name="live", at=0))
    read, written = (teacher.usage.input_tokens, teacher.usage.output_tokens) if teacher.usage else (0, 0)
    chosen = choose(route, ask, draw=0.5, audit_draw=1.0, shadow_draw=1.0)
    if chosen.arm is not Arm.STUDENT or chosen.query is None or route.student is None or route.gate is None:
        return Decided(chosen.reason, True, read, written)
    try:
        made: Draft = await draft_patiently(route.student, chosen.query, http=http, salt=salt)
    except UnableToDraft as error:
        return Decided(error.reason, True, read, written)
    expected = canonical(kind, teacher)
    wrong = expected is None or differs(kind, made.answer, expected)
    verdict = accept(made.answer, made.evidence, route.gate)
    return Decided("accepted" if isinstance(verdict, Accept) else verdict.reason, wrong, read, written)


def _add_up(decided: Sequence[Decided], seconds: float) -> Outcome:
    accepted = [one for one in decided if one.reason == "accepted"]
    deferred = [one for one in decided if one.reason != "accepted"]
    return Outcome(
        calls=len(decided),
        answered=len(accepted),
        differing=sum(one.differs for one in accepted),
        agreement_all=sum(not one.differs for one in decided) / max(len(decided), 1),
        reasons=dict(Counter(one.reason for one in decided)),
        student_seconds=seconds,
        read_tokens=sum(one.read for one in decided),
        written_tokens=sum(one.written for one in decided),
        deferred_read=sum(one.read for one in deferred),
        deferred_written=sum(one.written for one in deferred),
    )


def _certificate_report(certificate: Certificate) -> dict[str, object]:
    return {
        "certified": certificate.certified,
        "alpha": certificate.alpha,
        "delta": certificate.delta,
        "promise": certificate.promise,
        "threshold": certificate.threshold,
        "coverage": certificate.coverage,
        "calibration_rows": certificate.calibration_rows,
        "accepted": certificate.accepted,
        "differing": certificate.differing,
        "upper_bound": certificate.upper_bound,
        "reason": certificate.reason,
        "more_rows_needed": certificate.more_rows_needed,
        "curve": certificate.curve,
    }


def _live_report(plan: Plan, outcome: Outcome) -> dict[str, object]:
    at_risk = outcome.answered if plan.promise == "per_answer" else outcome.calls
    low, high = clopper_pearson_interval(outcome.differing, at_risk)
    without = _cost(plan, outcome.read_tokens, outcome.written_tokens)
    machine = plan.hourly_cost * Decimal(str(outcome.student_seconds)) / 3600
    with_student = _cost(plan, outcome.deferred_read, outcome.deferred_written) + machine
    million = Decimal(1_000_000) / outcome.calls
    risk = outcome.differing / max(at_risk, 1)
    return {
        **asdict(outcome),
        "coverage": outcome.answered / outcome.calls,
        "realised_risk": risk,
        "risk_interval_95": [low, high],
        "promise_kept": risk <= plan.alpha,
        "currency": settings.CURRENCY,
        "cost_per_million_without": str((without * million).quantize(Decimal("0.01"))),
        "cost_per_million_with": str((with_student * million).quantize(Decimal("0.01"))),
    }


def _cost(plan: Plan, read: int, written: int) -> Decimal:
    return (plan.input_price * read + plan.output_price * written) / 1_000_000


def utc_now() -> datetime:
    """The clock at this edge."""
    return datetime.now(UTC)
