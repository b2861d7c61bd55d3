"""Holds that an evaluation is one worker's at a time, that it ends, and that what cannot be measured is not used."""

from datetime import timedelta

import pytest

from ingestion.curate import example_context
from ingestion.models import Example
from serving.evaluate import ATTEMPTS, BATCH, LEASE, PAUSE, UnableToEvaluate, evaluate, evaluations_due
from serving.models import Deployment, Evaluation
from tenants.core.sealing import seal
from tenants.models import Event
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from tests.fakes.encoder import Encoder, decision
from tests.fakes.serve import Served, free_port
from tests.serving.makers import make_adapter, make_deployment, make_workload
from training.models import Adapter


@pytest.fixture
def deployment(company, now):
    return make_deployment(make_adapter(make_workload(company.id, now), now), now)


@pytest.fixture
def encoder(deployment, settings):
    fake = Encoder(decisions={deployment.adapter.name: decision("parcel")})
    with Served(fake) as served:
        settings.ENCODER_URLS = [served.url]
        yield fake


@pytest.fixture
def nobody_answers(settings):
    settings.ENCODER_URLS = [f"http://127.0.0.1:{free_port()}"]


def keep_examples(deployment, count, now):
    with acting_for(deployment.tenant_id):
        key, dataset = data_key_in_force(), deployment.adapter.dataset
        for number in range(count):
            example = Example(
                tenant_id=deployment.tenant_id,
                dataset=dataset,
                call_id=f"00000000-0000-7000-8000-{number:012}",
                at=now,
                split="tuning" if number % 2 else "calibration",
                cluster=number,
                provider="openai",
                stance="internal_only",
            )
            for column, text in (("query", f"where is pallet {number}"), ("answer", "parcel")):
                sealed = seal(key, text.encode(), context=example_context(example, column))
                setattr(example, f"{column}_sealed", sealed)
            example.save()


def only_evaluation(company):
    with acting_for(company.id):
        return Evaluation.objects.get()


def at(moment):
    return lambda: moment


def test_an_evaluation_keeps_a_row_for_every_question(company, deployment, encoder, now):
    keep_examples(deployment, 6, now)
    found = evaluate(company.id, deployment.id, clock=at(now))
    assert (found.status, len(found.rows), found.arms["student"]) == ("done", 6, 1.0)
    assert evaluations_due(company.id, now=now + timedelta(days=1)) == []


def test_a_long_evaluation_stays_one_worker_s(company, deployment, encoder, now):
    keep_examples(deployment, BATCH + 1, now)
    seen = []

    def clock():
        moment = now + len(seen) * (LEASE - timedelta(seconds=1))
        seen.append(evaluations_due(company.id, now=moment))
        return moment

    assert evaluate(company.id, deployment.id, clock=clock).status == "done"
    assert seen == [[deployment.id], [], [], []]


def test_a_worker_that_was_overtaken_writes_nothing(company, deployment, encoder, now):
    keep_examples(deployment, 2, now)
    moments = iter([now, now + timedelta(hours=1)])

    def clock():
        moment = next(moments)
        if moment > now:
            with acting_for(company.id):
                assert Evaluation.objects.get().claim(moment, lease=LEASE)
        return moment

    assert evaluate(company.id, deployment.id, clock=clock) is None
    assert (only_evaluation(company).status, only_evaluation(company).rows) == ("running", [])


def test_an_evaluation_that_nobody_answers_fails_after_its_last_attempt(company, deployment, nobody_answers, now):
    keep_examples(deployment, 2, now)
    moment = now
    for attempt in range(1, ATTEMPTS + 1):
        assert evaluations_due(company.id, now=moment) == [deployment.id]
        with pytest.raises(UnableToEvaluate):
            evaluate(company.id, deployment.id, clock=at(moment))
        assert only_evaluation(company).attempts == attempt
        assert evaluations_due(company.id, now=moment + PAUSE / 2) == []
        moment += PAUSE + timedelta(seconds=1)
    failed = only_evaluation(company)
    assert (failed.status, failed.error) == ("failed", "encoder down")
    with acting_for(company.id):
        assert Event.objects.get(kind="evaluation.failed").data == {"reason": "encoder down"}
        assert Adapter.objects.get().status == "rejected"
    assert evaluations_due(company.id, now=moment) == []


def test_an_evaluation_that_lost_every_worker_fails_too(company, deployment, encoder, now):
    with acting_for(company.id):
        Evaluation.objects.create(deployment=deployment, created_at=now, lease_until=now, attempts=ATTEMPTS)
    assert evaluate(company.id, deployment.id, clock=at(now + timedelta(hours=1))) is None
    assert (only_evaluation(company).status, only_evaluation(company).error) == ("failed", "its workers were lost")


def test_a_rival_evaluates_nothing_of_the_company_s(company, rival, deployment, now):
    assert evaluations_due(rival.id, now=now) == []
    with pytest.raises(Deployment.DoesNotExist):
        evaluate(rival.id, deployment.id, clock=at(now))
