"""Fills a tenant with one of everything, each text of it marked, so that a leak is found by looking for the mark."""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from billing.models import Invoice, LedgerEntry, SavingsStatement
from ingestion.core.calls import Answer, Arm, Dialect, Finish, Usage, body_context
from ingestion.core.dialects import parse_ask, render_stream
from ingestion.models import Call, Dataset, Erasure, Payload, Workload
from serving.models import Audit, Certificate, Deployment, Evaluation, Rollout
from tenants.core.sealing import seal
from tenants.events import record_event
from tenants.models import Event, Membership, ProviderCredential, WebhookDelivery, WebhookEndpoint
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from training.models import Adapter, TrainingRun

MARK = "zq-northwind-mark"
QUERY = f"Where is my {MARK} container?"
SYSTEM = "Route the message."


@dataclass(frozen=True)
class World:
    """The ids of one of everything."""

    workload: UUID
    call: UUID
    dataset: UUID
    run: UUID
    adapter: UUID
    certificate: UUID
    rollout: UUID
    statement: UUID
    endpoint: UUID
    event: UUID
    credential: UUID
    membership: int


def uuid7(at: datetime) -> UUID:
    head = int(at.timestamp() * 1000).to_bytes(6, "big")
    tail = bytearray(os.urandom(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return UUID(bytes=head + bytes(tail))


def make_world(company, *, now: datetime, calls: int = 12, state: str = "shadow", approved: bool = False) -> World:
    """One of everything for a company, as the pipeline would have left it at `now`."""
    with acting_for(company.id):
        workload = Workload.objects.create(
            slug="routing",
            name=f"Routing {MARK}",
            kind="label",
            dialect="openai",
            asked_model="gpt-4o",
            template={"system": SYSTEM, "prefix": "", "suffix": ""},
            verdict="suitable",
            verdict_reasons=[f"8 labels over 2,000 calls, {MARK}."],
            found_at=now - timedelta(hours=3),
            looked_at=now,
        )
        made = [_call(company, workload, now - timedelta(seconds=20 * n), list(Arm)[n % 4]) for n in range(calls)]
        dataset = _dataset(workload, now)
        run, adapter = _adapter(workload, dataset, now)
        rollout, certificate = _rollout(workload, adapter, now, state, approved)
        _audits(rollout, made, now)
        statement = _money(workload, now)
        endpoint, event = _webhook(now)
        Erasure.objects.create(
            subject_hmac="0" * 64, is_new=True, requested_by=f"user:{MARK}", requested_at=now, finished_at=now
        )
        return World(
            workload=workload.id,
            call=made[0].id,
            dataset=dataset.id,
            run=run.id,
            adapter=adapter.id,
            certificate=certificate.id,
            rollout=rollout.id,
            statement=statement.id,
            endpoint=endpoint.id,
            event=event.id,
            credential=ProviderCredential.objects.first().id,
            membership=Membership.objects.get().id,
        )


def _call(company, workload: Workload, at: datetime, arm: Arm) -> Call:
    call_id = uuid7(at)
    student = arm is Arm.STUDENT
    call = Call.objects.create(
        id=call_id,
        key_id=company.key.id,
        at=at,
        dialect="openai",
        asked_model="gpt-4o",
        answered_model="understudy" if student else "gpt-4o-2024-08-06",
        workload_id=workload.id,
        arm=arm,
        reason="accepted" if student else "share",
        adapter=f"routing-v1-{MARK}" if student else "",
        score=0.97 if student else None,
        finish="stop",
        input_tokens=0 if student else 182,
        output_tokens=0 if student else 4,
        student_ms=38.2 if student else 0,
        first_byte_ms=61,
        total_ms=63.5,
        teacher_cost=None if student else Decimal("0.000495"),
    )
    request = {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUERY}],
    }
    message = {"role": "assistant", "content": f"track_shipment <b>{MARK}</b>"}
    response = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 182, "completion_tokens": 4, "total_tokens": 186},
    }
    _keep(call_id, company.id, json.dumps(request).encode(), json.dumps(response).encode())
    return call


def make_streamed_call(company, at: datetime) -> UUID:
    """A call of no workload whose answer went out as a stream."""
    raw = b'{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "Is it open?"}]}'
    answer = Answer("a claim is <open>", Finish.STOP, "gpt-4o", usage=Usage(9, 4))
    body = render_stream(parse_ask(Dialect.OPENAI, raw), answer, call_id="x", created=1)
    with acting_for(company.id):
        call = Call.objects.create(
            id=uuid7(at),
            key_id=company.key.id,
            at=at,
            dialect="openai",
            asked_model="gpt-4o",
            arm=Arm.TEACHER,
            stream=True,
        )
        _keep(call.id, company.id, raw, body)
    return call.id


def _keep(call_id: UUID, tenant_id: UUID, request: bytes, response: bytes) -> None:
    key = data_key_in_force()
    Payload.objects.create(
        call_id=call_id,
        request_sealed=seal(key, request, context=_context(call_id, tenant_id, "request")),
        response_sealed=seal(key, response, context=_context(call_id, tenant_id, "response")),
    )


def _context(call_id: UUID, tenant_id: UUID, column: str) -> str:
    return body_context(str(call_id), str(tenant_id), column)


def _dataset(workload: Workload, now: datetime) -> Dataset:
    return Dataset.objects.create(
        workload=workload,
        version=1,
        kind="label",
        counts={"train": 1200, "tuning": 300, "calibration": 500},
        left_out={"near_duplicate": 61, "truncated": 4, MARK: 2},
        stances={"internal_only": 2000},
        content_hash="ab" * 32,
        created_at=now - timedelta(hours=2),
        frozen_at=now - timedelta(hours=2),
    )


def _adapter(workload: Workload, dataset: Dataset, now: datetime) -> tuple[TrainingRun, Adapter]:
    run = TrainingRun.objects.create(
        dataset=dataset,
        rung="lora",
        status="succeeded",
        attempts=1,
        seconds=212,
        cost=Decimal("0.0047"),
        metrics={"note": MARK},
        created_at=now - timedelta(hours=2),
        finished_at=now - timedelta(hours=1),
    )
    adapter = Adapter.objects.create(
        run=run,
        workload=workload,
        dataset=dataset,
        name=f"routing-v1-{MARK}",
        rung="lora",
        status="accepted",
        artifact_key=f"{MARK}/adapter",
        checksum="cd" * 32,
        created_at=now - timedelta(hours=1),
    )
    return run, adapter


def _rollout(workload, adapter, now: datetime, state: str, approved: bool) -> tuple[Rollout, Certificate]:
    deployment = Deployment.objects.create(adapter=adapter, status="live", created_at=now, live_at=now, changed_at=now)
    evaluation = Evaluation.objects.create(
        deployment=deployment,
        status="done",
        lease_until=now,
        arms={"student": 0.971, "base": 0.214, "rows": 800},
        created_at=now,
        finished_at=now,
    )
    steps = [0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5]
    curve = [
        {
            "threshold": step,
            "accepted": int(500 * (1.1 - step) / 0.6),
            "differing": round((1 - step) * 20),
            "upper_bound": 0.012 + (1 - step) * 0.11,
            "passed": step >= 0.6,
        }
        for step in steps
    ]
    certificate = Certificate.objects.create(
        evaluation=evaluation,
        adapter=adapter,
        alpha=0.05,
        delta=0.1,
        promise="per_answer",
        certified=True,
        threshold=0.7,
        coverage=0.81,
        calibration_rows=500,
        accepted=405,
        differing=9,
        upper_bound=0.037,
        curve=curve,
        reason=MARK,
        issued_at=now,
    )
    rollout = Rollout.objects.create(
        workload=workload,
        deployment=deployment,
        certificate=certificate,
        state=state,
        share={"shadow": 0.0, "canary": 0.05, "ramping": 0.5}.get(state, 1.0),
        approved_at=now if approved else None,
        reason=MARK if state == "held" else "",
        held_from="canary" if state == "held" else "",
        created_at=now - timedelta(minutes=30),
        step_at=now - timedelta(minutes=30),
    )
    return rollout, certificate


def _audits(rollout: Rollout, calls: list[Call], now: datetime) -> None:
    Audit.objects.bulk_create(
        Audit(
            tenant_id=rollout.tenant_id,
            rollout=rollout,
            call_id=calls[number].id if number < len(calls) else uuid7(now),
            call_at=now,
            kind="shadow",
            status="done",
            accepted=number % 5 != 0,
            differs=number % 40 == 3,
            claimed_until=now,
            cost=Decimal("0.000495"),
            done_at=now + timedelta(seconds=number),
        )
        for number in range(120)
    )


def _money(workload: Workload, now: datetime) -> SavingsStatement:
    starts = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = (starts + timedelta(days=32)).replace(day=1)
    hour = now.replace(minute=0, second=0, microsecond=0)
    LedgerEntry.objects.bulk_create(
        LedgerEntry(
            tenant_id=workload.tenant_id,
            kind="calls",
            hour=hour - timedelta(hours=back),
            workload_id=workload.id,
            arm=arm,
            model=f"=gpt-4o {MARK}",
            calls=calls,
            counterfactual=Decimal("0.000495") * calls,
            actual=Decimal("0.000495") * calls if arm != "student" else Decimal(0),
            currency="USD",
            made_at=now,
        )
        for back in range(12)
        for arm, calls in (("student", 80 - 3 * back), ("teacher", 10 + 2 * back), ("fallback", 6), ("control", 2))
    )
    statement = SavingsStatement.objects.create(
        number=f"US-{starts:%Y-%m}-{MARK}",
        starts_at=starts,
        ends_at=ends,
        calls=1128,
        student_calls=762,
        counterfactual=Decimal("121.5583600000"),
        teacher_cost=Decimal("38.1811700000"),
        audit_cost=Decimal("2.0594000000"),
        training_cost=Decimal("0.0047"),
        serving_cost=Decimal("0.2119"),
        saving=Decimal("81.1011900000"),
        saving_low=Decimal("79.88"),
        saving_high=Decimal("82.31"),
        share=Decimal("0.2"),
        fee=Decimal("16.22"),
        currency="USD",
        updated_at=now,
    )
    Invoice.objects.create(
        statement=statement,
        amount=Decimal("16.22"),
        currency="USD",
        hosted_url=f"https://pay.example/{MARK}",
        created_at=now,
    )
    return statement


def _webhook(now: datetime) -> tuple[WebhookEndpoint, Event]:
    endpoint = WebhookEndpoint.objects.create(
        url=f"https://hooks.example/{MARK}", secret_sealed=b"x", created_at=now - timedelta(days=1)
    )
    event = record_event("rollout.canary", now=now, subject_id="x", note=MARK)
    WebhookDelivery.objects.create(
        endpoint=endpoint, event=event, status="delivered", attempts=1, due_at=now, last_status=204, delivered_at=now
    )
    return endpoint, event
