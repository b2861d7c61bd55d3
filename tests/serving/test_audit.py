"""Holds that audits ask the other one once, off the request path, and count exactly what they found."""

from datetime import timedelta
from decimal import Decimal
from itertools import chain, repeat
from uuid import UUID

import msgspec
import pytest

from ingestion.store import store_calls
from serving.audit import BATCH, BUDGET, SLICE, audit, audit_batches, audits_due
from serving.models import Audit, Rollout
from tenants.models import ProviderCredential
from tenants.provision import store_credential
from tenants.scope import acting_for
from tests.fakes.encoder import Encoder, decision
from tests.fakes.serve import Served, free_port
from tests.fakes.teacher import Teacher
from tests.ingestion.makers import log_calls, record_of
from tests.serving.makers import make_rollout


@pytest.fixture
def rollout(company, now):
    return make_rollout(company.id, now)


def log_marked(company, rollout, query, answer, at, **facts):
    with acting_for(company.id):
        record = record_of(company.id, query, answer, at=at, workload_id=str(rollout.workload_id), **facts)
    store_calls([record], price=lambda _: Decimal(0), now=at)
    return UUID(record.id)


def log_live(company, rollout, query, at, **more):
    facts = {"arm": "student", "adapter": rollout.deployment.adapter.name, "asked_model": "gpt-4o", **more}
    return log_marked(company, rollout, query, "parcel", at, wants_audit=True, **facts)


def only_audit(company):
    with acting_for(company.id):
        return Audit.objects.get()


@pytest.fixture
def encoder(rollout, settings):
    fake = Encoder(decisions={rollout.deployment.adapter.name: decision("parcel")})
    with Served(fake) as served:
        settings.ENCODER_URLS = [served.url]
        yield fake


@pytest.fixture
def teacher(company):
    fake = Teacher()
    with Served(fake) as served:
        with acting_for(company.id):
            ProviderCredential.objects.filter(provider="openai").update(base_url=served.url)
        yield fake


def test_a_shadow_audit_asks_the_student_what_the_teacher_answered(company, rollout, encoder, now):
    at = now + timedelta(minutes=1)
    log_marked(company, rollout, "where is my pallet", "parcel", at, wants_shadow=True)
    log_marked(company, rollout, "unmarked", "parcel", at)
    assert audit(company.id, rollout.id, now=at) == 1
    found = only_audit(company)
    assert (found.kind, found.status, found.accepted, found.differs) == ("shadow", "done", True, False)
    assert audit(company.id, rollout.id, now=at) == 0
    assert len(encoder.asked) == 1


def test_a_shadow_audit_sees_a_disagreement_and_what_the_gate_would_have_done(company, rollout, encoder, now):
    at = now + timedelta(minutes=1)
    encoder.decisions[rollout.deployment.adapter.name] = decision("parcel", sure=0.9, novelty=0.001)
    log_marked(company, rollout, "give me my money back", "refund", at, wants_shadow=True, arm="control")
    audit(company.id, rollout.id, now=at)
    found = only_audit(company)
    assert (found.accepted, found.differs, found.control) == (False, True, True)


def test_a_live_audit_asks_the_teacher_with_the_tenant_s_credential_and_prices_it(company, rollout, teacher, now):
    at = now + timedelta(minutes=1)
    log_live(company, rollout, "where is my pallet", at)
    assert audit(company.id, rollout.id, now=at) == 1
    found = only_audit(company)
    assert (found.kind, found.status, found.accepted) == ("live", "done", True)
    assert found.differs is True  # the stand-in's answer is another
    assert found.cost > 0


def test_an_answer_later_than_callers_wait_is_left_to_the_teacher(company, rollout, encoder, settings, now):
    settings.STUDENT_TIMEOUT_S = 1e-6
    at = now + timedelta(minutes=1)
    log_marked(company, rollout, "where is my pallet", "parcel", at, wants_shadow=True)
    audit(company.id, rollout.id, now=at)
    found = only_audit(company)
    assert (found.status, found.accepted, found.differs) == ("done", False, False)


def test_a_teacher_s_answer_that_cannot_be_compared_counts_as_differing(company, rollout, encoder, now):
    at = now + timedelta(minutes=1)
    log_marked(company, rollout, "where is my pallet", "", at, wants_shadow=True)
    audit(company.id, rollout.id, now=at)
    found = only_audit(company)
    assert (found.status, found.accepted, found.differs) == ("done", True, True)


def test_a_live_audit_asks_under_the_credential_that_the_call_would_have_gone_under(company, rollout, teacher, now):
    at = now + timedelta(minutes=1)
    with acting_for(company.id):
        usual = ProviderCredential.objects.get(provider="openai")
        facts = {"provider": "openai", "secret": "sk-second", "stance": "allowed", "actor": "test", "now": now}
        second = store_credential(name="a-second", base_url=usual.base_url, **facts)
    log_live(company, rollout, "where is my pallet", at, credential_id=str(second.id), provider="openai")
    log_live(company, rollout, "where is my parcel", at)
    audit(company.id, rollout.id, now=at)
    assert sorted(seen.headers["authorization"] for seen in teacher.seen) == [
        "Bearer sk-openai-North",
        "Bearer sk-second",
    ]


def test_a_live_audit_without_usage_is_priced_by_length(company, rollout, teacher, now):
    at = now + timedelta(minutes=1)
    teacher.counts = False
    log_live(company, rollout, "where is my pallet", at)
    audit(company.id, rollout.id, now=at)
    assert only_audit(company).cost > 0


def test_a_worker_goes_on_until_its_time_is_spent_and_gives_back_what_it_did_not_begin(company, rollout, encoder, now):
    marked = {"workload_id": str(rollout.workload_id), "wants_shadow": True}
    first = log_calls(company.id, BATCH + 5, now=now + timedelta(hours=2), **marked)[0]
    later = now + timedelta(hours=3)
    ticks = chain([later, later], repeat(later + BUDGET))
    assert audit_batches(company.id, rollout.id, clock=lambda: next(ticks)) == SLICE
    with acting_for(company.id):
        assert Audit.objects.get(call_id=first.id).status == "done"  # the oldest goes first
    assert audit_batches(company.id, rollout.id, clock=lambda: later) == BATCH + 5 - SLICE
    with acting_for(company.id):
        done = Audit.objects.filter(status="done")
        assert set(done.values_list("attempts", flat=True)) == {1} and done.count() == BATCH + 5


def test_an_audit_whose_replica_is_away_is_tried_again_and_then_given_up(company, rollout, settings, now):
    settings.ENCODER_URLS = [f"http://127.0.0.1:{free_port()}"]
    at = now + timedelta(minutes=1)
    log_marked(company, rollout, "where is my pallet", "parcel", at, wants_shadow=True)
    for minute, expected in ((1, "claimed"), (10, "claimed"), (20, "failed")):
        audit(company.id, rollout.id, now=now + timedelta(minutes=minute))
        assert only_audit(company).status == expected
    assert only_audit(company).error == "encoder_down"
    assert audit(company.id, rollout.id, now=now + timedelta(minutes=40)) == 0


def test_calls_from_before_the_rollout_and_of_another_adapter_are_not_its_audits(company, rollout, encoder, now):
    log_marked(company, rollout, "early", "parcel", now - timedelta(hours=1), wants_shadow=True)
    at = now + timedelta(minutes=1)
    log_marked(company, rollout, "other", "parcel", at, wants_audit=True, arm="student", adapter="another-v1")
    assert audit(company.id, rollout.id, now=at) == 0


def test_a_call_whose_payload_is_gone_closes_its_audit_without_a_finding(company, rollout, encoder, now):
    at = now + timedelta(minutes=1)
    with acting_for(company.id):
        record = record_of(company.id, "gone", "parcel", at=at, workload_id=str(rollout.workload_id), wants_shadow=True)
    store_calls([msgspec.structs.replace(record, request_sealed=None)], price=lambda _: None, now=at)
    audit(company.id, rollout.id, now=at)
    assert (only_audit(company).status, only_audit(company).accepted) == ("failed", None)


def test_a_rival_audits_nothing_of_the_company_s(company, rival, rollout, now):
    assert audits_due(rival.id) == []
    with pytest.raises(Rollout.DoesNotExist):
        audit(rival.id, rollout.id, now=now)
