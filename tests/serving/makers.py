"""Makes the rows between a frozen dataset and a rollout in play, as the stages would have made them."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec

from ingestion.core.templates import Template
from ingestion.models import Call, Dataset, Workload
from serving.core.gates import Acceptor, Evidence, Gate, Rung, StudentSpec
from serving.evaluate import Row
from serving.models import Audit, Certificate, Deployment, Evaluation, Rollout
from tenants.scope import acting_for
from tests.ingestion.makers import LABELS, SYSTEM, uuid7
from training.models import Adapter, TrainingRun

OPEN_GATE = Gate(
    acceptor=Acceptor(mean=(0.0,) * 6, scale=(1.0,) * 6, weights=(4.0, 0.0, 0.0, 0.0, 0.0, 0.0), bias=0.0),
    threshold=0.5,
    novelty_epsilon=0.01,
)
SURE = Evidence(weakest=0.97, typical=0.9, spread=0.1, similarity=0.9, neighbour_agreement=1.0, novelty=0.6)


def make_workload(tenant_id: UUID, now: datetime, **facts: object) -> Workload:
    with acting_for(tenant_id):
        return Workload.objects.create(
            **{
                "slug": "routing",
                "name": "Routing",
                "kind": "label",
                "dialect": "openai",
                "asked_model": "gpt-4o",
                "template": msgspec.to_builtins(Template(system=SYSTEM)),
                "found_at": now,
                "looked_at": now,
                **facts,
            }
        )


def make_adapter(workload: Workload, now: datetime, *, status: str = "candidate", version: int = 1) -> Adapter:
    with acting_for(workload.tenant_id):
        dataset = Dataset.objects.create(
            workload=workload,
            version=version,
            kind="label",
            template=workload.template,
            labels={label: label for label in LABELS},
            max_query_chars=500,
            created_at=now,
            counts={"train": 600, "tuning": 150, "calibration": 250},
        )
        run = TrainingRun.objects.create(dataset=dataset, rung="head", status="succeeded", created_at=now)
        return Adapter.objects.create(
            run=run,
            workload=workload,
            dataset=dataset,
            name=f"routing-v{version}-head-{uuid4().hex[:8]}",
            rung="head",
            status=status,
            artifact_key="k",
            checksum="c",
            created_at=now,
        )


def make_spec(adapter: Adapter) -> StudentSpec:
    return StudentSpec(
        adapter=adapter.name,
        rung=Rung.HEAD,
        kind="label",
        template=Template(system=SYSTEM),
        labels=tuple(sorted(LABELS)),
        labels_display={label: label for label in LABELS},
        max_query_chars=500,
    )


def make_deployment(adapter: Adapter, now: datetime, *, status: str = "live") -> Deployment:
    with acting_for(adapter.tenant_id):
        return Deployment.objects.create(
            adapter=adapter,
            status=status,
            spec=msgspec.to_builtins(make_spec(adapter)),
            created_at=now,
            changed_at=now,
        )


def rows_with(wrong_when_unsure: int, *, tuning: int = 150, calibration: int = 250) -> list[Row]:
    """Evaluation rows of a student that errs, at the stated count, only where it is unsure."""
    rows = []
    for place in range(tuning + calibration):
        unsure = place % 10 == 0
        evidence = msgspec.structs.replace(SURE, weakest=0.3 + place % 7 / 100 if unsure else 0.9 + place % 9 / 100)
        rows.append(
            Row(
                example_id=place,
                split="tuning" if place < tuning else "calibration",
                evidence=evidence,
                answered=True,
                differs=unsure and place // 10 % 10 < wrong_when_unsure,
            )
        )
    return rows


def make_evaluation(deployment: Deployment, now: datetime, rows: list[Row], *, base: float = 0.2) -> Evaluation:
    agreement = sum(not row.differs for row in rows) / len(rows)
    with acting_for(deployment.tenant_id):
        return Evaluation.objects.create(
            deployment=deployment,
            status="done",
            lease_until=now,
            arms={"student": agreement, "base": base},
            rows=msgspec.to_builtins(rows),
            created_at=now,
            finished_at=now,
        )


def make_rollout(
    tenant_id: UUID, now: datetime, *, state: str = "shadow", share: float = 0.0, approved: bool = True
) -> Rollout:
    workload = make_workload(tenant_id, now)
    adapter = make_adapter(workload, now, status="accepted")
    deployment = make_deployment(adapter, now)
    evaluation = make_evaluation(deployment, now, rows_with(5))
    with acting_for(tenant_id):
        certificate = Certificate.objects.create(
            evaluation=evaluation,
            adapter=adapter,
            alpha=0.05,
            delta=0.1,
            promise="per_answer",
            certified=True,
            gate=msgspec.to_builtins(OPEN_GATE),
            threshold=0.5,
            calibration_rows=250,
            issued_at=now,
        )
        return Rollout.objects.create(
            workload=workload,
            deployment=deployment,
            certificate=certificate,
            state=state,
            share=share,
            approved_at=now if approved else None,
            created_at=now,
            step_at=now,
        )


def make_audits(
    rollout: Rollout, count: int, *, differing: int = 0, at: datetime, accepted: bool = True, kind: str = "shadow"
) -> None:
    with acting_for(rollout.tenant_id):
        Audit.objects.bulk_create(
            Audit(
                tenant_id=rollout.tenant_id,
                rollout=rollout,
                call_id=uuid4(),
                call_at=at,
                kind=kind,
                status="done",
                claimed_until=at,
                accepted=accepted,
                differs=place < differing,
                done_at=at,
            )
            for place in range(count)
        )


def make_call(rollout: Rollout, at: datetime, **facts: object) -> Call:
    with acting_for(rollout.tenant_id):
        return Call.objects.create(
            **{
                "id": UUID(uuid7(at)),
                "key_id": uuid4(),
                "at": at + timedelta(seconds=1),
                "dialect": "openai",
                "asked_model": "gpt-4o",
                "workload_id": rollout.workload_id,
                "arm": "teacher",
                **facts,
            }
        )
