"""A tenant's month in facts: calls of both arms, audits, a run, from which the money follows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from ingestion.core.calls import Arm, Usage
from ingestion.models import Call, Dataset, Workload
from ingestion.prices import PriceBook
from serving.models import Audit, Certificate, Deployment, Evaluation, Rollout
from tenants.scope import acting_for
from training.models import Adapter, TrainingRun

CALL_COST = Decimal("0.0026")  # gpt-4o: 1,000 tokens in at 2.5 and 10 out at 10 dollars a million


@dataclass
class Books:
    """One tenant's facts, written as the feed and the stages write them."""

    tenant_id: UUID
    now: datetime

    def workload(self, slug="route-queries") -> Workload:
        with acting_for(self.tenant_id):
            return Workload.objects.create(
                slug=slug,
                name=slug,
                kind="label",
                dialect="openai",
                asked_model="gpt-4o",
                found_at=self.now,
                looked_at=self.now,
            )

    def calls(self, count, *, arm=Arm.TEACHER, workload=None, at=None, model="gpt-4o", read=1000, wrote=10, **facts):
        """`count` calls, a second apart; student calls have no teacher tokens and no cost."""
        at = at or self.now - timedelta(hours=1)
        by_student = arm == Arm.STUDENT
        usage = Usage(input_tokens=0 if by_student else read, output_tokens=0 if by_student else wrote)
        book = PriceBook.load(datetime(2100, 1, 1, tzinfo=at.tzinfo))
        facts = {"student_ms": 20.0 if by_student else 0.0, **facts}
        if not by_student and "teacher_cost" not in facts:
            facts["teacher_cost"] = book.cost(provider="openai", model=model, usage=usage, at=at)
        with acting_for(self.tenant_id):
            made = [
                Call(
                    id=uuid4(),
                    tenant_id=self.tenant_id,
                    key_id=uuid4(),
                    at=at + timedelta(seconds=number),
                    dialect="openai",
                    asked_model=model,
                    workload_id=workload.id if workload else None,
                    arm=arm,
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    student_input_tokens=90_000 if by_student else 0,
                    student_output_tokens=90_000 if by_student else 0,
                    **facts,
                )
                for number in range(count)
            ]
            Call.objects.bulk_create(made)
        return made

    def run(self, workload, *, cost, at=None) -> TrainingRun:
        at = at or self.now - timedelta(hours=1)
        with acting_for(self.tenant_id):
            dataset = Dataset.objects.create(workload=workload, version=1, kind="label", created_at=at)
            return TrainingRun.objects.create(
                dataset=dataset, rung="lora", status="succeeded", cost=cost, created_at=at, finished_at=at
            )

    def audit(self, workload, run, *, cost, at=None, kind=Audit.Kind.LIVE, student_ms=0.0) -> Audit:
        at = at or self.now - timedelta(hours=1)
        with acting_for(self.tenant_id):
            rollout = Rollout.objects.filter(workload=workload).first() or self._rollout(workload, run, at)
            return Audit.objects.create(
                rollout=rollout,
                call_id=uuid4(),
                call_at=at,
                kind=kind,
                status="done",
                claimed_until=at,
                cost=cost,
                student_ms=student_ms,
                done_at=at,
            )

    def _rollout(self, workload, run, at) -> Rollout:
        adapter = Adapter.objects.create(
            run=run,
            workload=workload,
            dataset=run.dataset,
            name=f"student-{uuid4().hex}",
            rung="lora",
            artifact_key="a",
            checksum="0" * 64,
            created_at=at,
        )
        deployment = Deployment.objects.create(adapter=adapter, created_at=at, changed_at=at)
        evaluation = Evaluation.objects.create(deployment=deployment, lease_until=at, created_at=at)
        certificate = Certificate.objects.create(
            evaluation=evaluation,
            adapter=adapter,
            alpha=0.05,
            delta=0.1,
            promise="per_answer",
            certified=True,
            calibration_rows=500,
            issued_at=at,
        )
        return Rollout.objects.create(
            workload=workload, deployment=deployment, certificate=certificate, created_at=at, step_at=at
        )


@pytest.fixture
def books(company, now) -> Books:
    return Books(company.id, now)


@pytest.fixture
def rival_books(rival, now) -> Books:
    return Books(rival.id, now)
