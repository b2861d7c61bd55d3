"""The product's whole promise on real parts: traffic teaches a LoRA on SmolLM2, which answers from a real vLLM.

One long test on purpose: each stage is the next one's setting, and an engine takes a minute to start. In its middle the
trainer is killed with -9, and another goes on from the checkpoint.
"""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import settings

from config import processes
from config.embedded import free_port
from config.models_here import ensure_models
from config.processes import Household, Ports, Program
from demo.traffic import Outcome, Plan, send
from ingestion.models import Call, Dataset, Workload
from serving.models import Audit, Certificate, Deployment, Evaluation, Rollout
from serving.rollout import back_to_teacher
from tenants.models import Event, Tenant
from tenants.provision import store_credential
from tenants.scope import acting_for
from tests.conftest import make_company
from tests.fakes.serve import wait_for
from tests.journeys.conftest import start_gateway
from training.models import Adapter, TrainingRun

TEACHER_KEY = "the-teacher-s-own-key"
PAIRS = 640
TRAINER_QUEUES = ("training", "evaluation")
UNHURRIED = 0.5  # seconds between two looks: the trainer and the engine need the cores that looking takes
RANK = 8  # half the arithmetic of the default, and enough for eight labels

pytestmark = pytest.mark.engine


def start_replicas(house: Household, ports: Ports) -> None:
    house.start(processes.vllm(ports, base_model=settings.BASE_MODEL, served_name="base", rank=RANK))
    house.start(processes.encoder(ports, model=settings.ENCODER_MODEL, cache=Path(settings.ARTIFACTS_CACHE)))
    house.wait_ready("vllm")
    house.wait_ready("encoder")


def start_teacher(house: Household) -> str:
    port = free_port()
    argv = [sys.executable, "-m", "demo.teacher", "--port", str(port), "--credential", TEACHER_KEY, "--latency-ms", "5"]
    house.start(Program("teacher", argv, f"http://127.0.0.1:{port}/readyz"))
    house.wait_ready("teacher")
    return f"http://127.0.0.1:{port}"


def one(company, model, **filters):
    """The tenant's only row of a model, once it is there."""

    def look():
        with acting_for(company.id):
            return model.objects.filter(**filters).first()

    return wait_for(look, patience=600, every=UNHURRIED)


def talk(ports: Ports, company, *, calls: int, seed: int, odd: float = 0.0, on_call=None):
    plan = Plan(
        base_url=f"http://127.0.0.1:{ports.gateway}",
        key=company.minted.plain,
        calls=calls,
        concurrency=8,
        seed=seed,
        workloads=("routing",),
        odd_share=odd,
    )
    return asyncio.run(send(plan, on_call=on_call))


def kill_trainer_in_the_middle(house: Household, company) -> TrainingRun:
    """kill -9 the worker once its trainer has taken some steps: what it leaves is a lease that runs out."""

    def under_way():
        with acting_for(company.id):
            run = TrainingRun.objects.first()
            return run if run and run.status == "running" and run.progress.get("step", 0) >= 25 else None

    run = wait_for(under_way, patience=600, every=UNHURRIED)
    assert list(Path(settings.RUNS_DIR).glob("*/data*")) == [], "the rows are read and need not lie there any more"
    house.kill("trainer")
    return run


def test_traffic_teaches_a_student_that_answers_from_a_real_vllm(database, household, ports):
    ensure_models(tell=print)
    company = make_company("Northwind Freight", "owner@northwind.example")
    household.tell(
        VLLM_URLS=f"http://127.0.0.1:{ports.vllm}",
        ENCODER_URLS=f"http://127.0.0.1:{ports.encoder}",
        MIN_PAIRS="600",
        LORA_RANK=str(RANK),
        LORA_MODULES="mlp",
        LORA_EPOCHS="1",
        LORA_BATCH="8",
        DATASET_GROWTH="9",  # one student is enough for this story
    )
    teacher = start_teacher(household)
    with acting_for(company.id):
        Tenant.objects.update(approval="automatic")
        store_credential(
            provider="openai",
            base_url=teacher,
            secret=TEACHER_KEY,
            stance="internal_only",
            actor="test",
            now=datetime.now(UTC),
        )
    start_gateway(household, ports, key=company.minted.plain)

    taught = talk(ports, company, calls=PAIRS, seed=0)
    assert (taught.errors, dict(taught.arms)) == (0, {"teacher": PAIRS})
    household.start(processes.worker(queues=("default", "webhooks", "audits"), name="worker", at_once=2))
    household.start(processes.worker(queues=TRAINER_QUEUES, name="trainer", at_once=1))
    household.start(processes.beat(household.logs))
    assert one(company, Workload, verdict="suitable").kind == "label"
    dataset = one(company, Dataset)
    assert set(dataset.stances) == {"internal_only"}

    interrupted = kill_trainer_in_the_middle(household, company)
    household.start(processes.worker(queues=TRAINER_QUEUES, name="second-trainer", at_once=1))
    run = one(company, TrainingRun, status="succeeded")
    assert (run.id, run.fencing_token, run.attempts) == (interrupted.id, 2, 2)
    assert run.metrics["resumed_from"] >= 20 and run.cost > 0
    adapter = one(company, Adapter)
    assert adapter.card["licence"] == "Apache-2.0" and adapter.card["dataset_hash"] == dataset.content_hash

    start_replicas(household, ports)
    one(company, Deployment, status="live")
    arms = one(company, Evaluation, status="done").arms
    assert arms["student"] > 0.8 > arms["base"]
    certificate = one(company, Certificate)
    assert certificate.certified and certificate.upper_bound <= 0.05
    rollout = one(company, Rollout, state="shadow")

    # A few at a time until the gateway knows it: each is asked of the student as well.
    wait_for(lambda: talk(ports, company, calls=5, seed=1).arms["control"], patience=60, every=UNHURRIED)
    talk(ports, company, calls=200, seed=5)
    wait_for(lambda: audits(company) >= 100, patience=600, every=UNHURRIED)
    rollout = one(company, Rollout, state="canary")
    with acting_for(company.id):
        assert rollout.advance("full", datetime.now(UTC), share=1.0)
    wait_for(lambda: talk(ports, company, calls=10, seed=2).arms["student"], patience=60, every=UNHURRIED)

    served: list[Outcome] = []
    talk(ports, company, calls=240, seed=3, odd=0.1, on_call=served.append)
    assert not [outcome for outcome in served if outcome.error]
    assert len([outcome for outcome in served if outcome.odd and outcome.arm == "fallback"]) > 5
    ordinary = [outcome for outcome in served if outcome.arm == "student" and not outcome.odd]
    assert len(ordinary) > 120
    # The certificate promises 0.05 of them; twice that in two hundred is no luck but a student that is not its own.
    assert len([outcome for outcome in ordinary if not outcome.agrees]) <= 0.1 * len(ordinary)
    with acting_for(company.id):
        wait_for(lambda: Call.objects.filter(arm="student", adapter=adapter.name).count() > 40)

    with acting_for(company.id):
        rollout = Rollout.objects.select_related("deployment__adapter").get(id=rollout.id)
        assert back_to_teacher(rollout, actor="user:1", reason="the test is over", now=datetime.now(UTC))
    wait_for(lambda: set(talk(ports, company, calls=5, seed=4).arms) == {"teacher"}, patience=30, every=UNHURRIED)
    with acting_for(company.id):
        kinds = set(Event.objects.values_list("kind", flat=True))
    assert {"dataset.frozen", "run.succeeded", "certificate.issued", "rollout.canary", "rollout.rolled_back"} <= kinds


def audits(company) -> int:
    with acting_for(company.id):
        return Audit.objects.filter(status="done", accepted=True).count()
