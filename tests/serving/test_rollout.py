"""Holds when traffic moves to a student, who may stop it, and that it goes back by itself when audits say so."""

from datetime import timedelta

import pytest

from ingestion.models import Workload
from serving.certify_adapter import certificates_due, certify_adapter
from serving.core import ramp
from serving.models import Certificate, Deployment, Rollout
from serving.rollout import approve, back_to_teacher, hold, move, resume, rollouts_due, start_rollouts, tally
from tenants.models import Event, Tenant
from tenants.scope import acting_for
from tests.serving.makers import (
    make_adapter,
    make_audits,
    make_deployment,
    make_evaluation,
    make_rollout,
    make_workload,
    rows_with,
)
from training.models import Adapter


def reread(rollout: Rollout) -> Rollout:
    with acting_for(rollout.tenant_id):
        return Rollout.objects.select_related("deployment__adapter", "certificate", "workload").get(id=rollout.id)


def events_of(tenant_id):
    with acting_for(tenant_id):
        return list(Event.objects.order_by("at").values_list("kind", flat=True))


def judged(company, now, *, wrong, base=0.2, automatic=True):
    with acting_for(company.id):
        Tenant.objects.update(approval="automatic" if automatic else "ask_first")
    deployment = make_deployment(make_adapter(make_workload(company.id, now), now), now)
    evaluation = make_evaluation(deployment, now, rows_with(wrong), base=base)
    return certify_adapter(company.id, evaluation.id, now=now)


def test_a_student_sure_where_it_is_right_is_certified_and_goes_into_shadow(company, now):
    certificate = judged(company, now, wrong=8)
    assert certificate.certified and certificate.upper_bound <= 0.05 and certificate.coverage > 0.5
    assert start_rollouts(company.id, now=now) == 1
    with acting_for(company.id):
        rollout = Rollout.objects.get()
    assert (rollout.state, rollout.share) == ("shadow", 0.0)
    assert start_rollouts(company.id, now=now) == 0


def test_a_rejected_adapter_is_never_deployed_to_callers(company, now):
    deployment = make_deployment(make_adapter(make_workload(company.id, now), now), now)
    rows = rows_with(0, tuning=60, calibration=20)
    evaluation = make_evaluation(deployment, now, rows)
    assert certificates_due(company.id) == [evaluation.id]
    certificate = certify_adapter(company.id, evaluation.id, now=now)
    assert not certificate.certified and certificate.more_rows_needed > 0 and certificate.reason
    assert start_rollouts(company.id, now=now) == 0
    with acting_for(company.id):
        assert Adapter.objects.get().status == "rejected"


def test_a_student_no_better_than_the_base_is_not_deployed(company, now):
    certificate = judged(company, now, wrong=5, base=0.99)
    assert not certificate.certified and "base" in certificate.reason
    assert start_rollouts(company.id, now=now) == 0


def test_a_rollout_takes_each_step_on_a_hundred_new_audits(company, now):
    rollout, seen = make_rollout(company.id, now), []
    for step in range(1, 6):
        at = now + timedelta(hours=step)
        make_audits(reread(rollout), 99, at=at)
        assert isinstance(move(company.id, rollout.id, now=at), ramp.Hold)
        make_audits(reread(rollout), 1, at=at)
        move(company.id, rollout.id, now=at + timedelta(minutes=1))
        seen.append((reread(rollout).state, reread(rollout).share))
    assert seen == [("canary", 0.05), ("ramping", 0.25), ("ramping", 0.5), ("full", 1.0), ("full", 1.0)]


def test_without_approval_a_rollout_stays_in_shadow(company, now):
    rollout = make_rollout(company.id, now, approved=False)
    make_audits(rollout, 150, at=now)
    move(company.id, rollout.id, now=now)
    assert reread(rollout).state == "shadow"
    with acting_for(company.id):
        assert approve(reread(rollout), actor="user:1", now=now)
        assert not approve(reread(rollout), actor="user:1", now=now)
    move(company.id, rollout.id, now=now)
    assert reread(rollout).state == "canary"


def test_audits_that_refute_the_promise_give_everything_back_to_the_teacher(company, now):
    rollout = make_rollout(company.id, now, state="full", share=1.0)
    make_audits(rollout, 60, differing=15, at=now, kind="live")
    assert isinstance(move(company.id, rollout.id, now=now), ramp.RollBack)
    after = reread(rollout)
    assert (after.state, after.share) == ("rolled_back", 0.0)
    assert after.deployment.status == Deployment.Status.DRAINING
    assert after.deployment.adapter.status == "retired"
    assert rollouts_due(company.id) == []
    with acting_for(company.id):
        receipt = Event.objects.get(kind="rollout.rolled_back").data
    assert (receipt["differing"], receipt["audits"]) == (15, 60) and receipt["log_e"] > 2.3


def test_a_held_rollout_moves_for_nobody_until_it_is_resumed_where_it_was(company, now):
    rollout = make_rollout(company.id, now, state="ramping", share=0.25)
    make_audits(rollout, 200, at=now)
    with acting_for(company.id):
        assert hold(reread(rollout), actor="user:1", reason="looking into it", now=now)
        assert not hold(reread(rollout), actor="user:1", reason="again", now=now)
    assert rollouts_due(company.id) == []
    with acting_for(company.id):
        assert resume(reread(rollout), actor="user:1", now=now)
    assert (reread(rollout).state, reread(rollout).share) == ("ramping", 0.25)


def test_a_person_can_give_the_traffic_back_for_good(company, now):
    rollout = make_rollout(company.id, now, state="canary", share=0.05)
    with acting_for(company.id):
        assert back_to_teacher(reread(rollout), actor="user:1", reason="not now", now=now)
        assert not back_to_teacher(reread(rollout), actor="user:1", reason="again", now=now)
    assert reread(rollout).state == "rolled_back"
    assert start_rollouts(company.id, now=now) == 0


def test_two_workers_cannot_take_the_same_step_twice(company, now):
    rollout = make_rollout(company.id, now)
    one, other = reread(rollout), reread(rollout)
    with acting_for(company.id):
        assert one.advance("canary", now, share=0.05)
        assert not other.advance("canary", now, share=0.05)
    assert events_of(company.id).count("rollout.canary") == 1


def test_a_stricter_promise_needs_a_new_certificate_or_the_traffic_goes_back(company, now):
    certificate = judged(company, now, wrong=8)
    start_rollouts(company.id, now=now)
    with acting_for(company.id):
        rollout = Rollout.objects.get()
        Workload.objects.update(alpha=0.04)
    move(company.id, rollout.id, now=now)
    assert reread(rollout).certificate.alpha == 0.04 and reread(rollout).certificate_id != certificate.id
    with acting_for(company.id):
        Workload.objects.update(alpha=0.001)
    move(company.id, rollout.id, now=now)
    assert reread(rollout).state == "rolled_back"
    with acting_for(company.id):
        assert Certificate.objects.count() == 3


def newer(rollout, at, *, version=2, coverage=0.9):
    """A student of the same workload, certified and live, that was made later."""
    deployment = make_deployment(make_adapter(rollout.workload, at, version=version), at)
    certificate = certify_adapter(rollout.tenant_id, make_evaluation(deployment, at, rows_with(8)).id, now=at)
    with acting_for(rollout.tenant_id):
        Certificate.objects.filter(id=certificate.id).update(coverage=coverage)
    return deployment


def under_way(company, now, *, coverage=0.5, **facts):
    rollout = make_rollout(company.id, now, **facts)
    with acting_for(company.id):
        Tenant.objects.update(approval="automatic")
        Certificate.objects.update(coverage=coverage)
    return rollout


@pytest.mark.parametrize("state", ["shadow", "canary", "ramping"])
def test_a_student_on_its_way_up_is_not_superseded(company, now, state):
    old, later = under_way(company, now, state=state), now + timedelta(days=1)
    waiting = newer(old, later, coverage=0.9)
    assert start_rollouts(company.id, now=later) == 0
    assert reread(old).state == state
    with acting_for(company.id):
        assert Adapter.objects.get(id=waiting.adapter_id).status == "accepted"


def test_certifying_twice_issues_one_certificate(company, now):
    deployment = make_deployment(make_adapter(make_workload(company.id, now), now), now)
    evaluation = make_evaluation(deployment, now, rows_with(8))
    first = certify_adapter(company.id, evaluation.id, now=now)
    assert certify_adapter(company.id, evaluation.id, now=now).id == first.id
    assert events_of(company.id).count("certificate.issued") == 1


def test_a_newer_student_that_covers_more_supersedes_the_one_at_full_and_begins_in_shadow(company, now):
    old, later = under_way(company, now, state="full", share=1.0), now + timedelta(days=1)
    assert newer(old, later, coverage=0.5) and start_rollouts(company.id, now=later) == 0
    deployment = newer(old, later + timedelta(minutes=1), version=3, coverage=0.6)
    later += timedelta(hours=1)
    assert start_rollouts(company.id, now=later) == 1
    ended = reread(old)
    assert (ended.state, ended.share, ended.deployment.status) == ("superseded", 0.0, "draining")
    assert ended.deployment.adapter.status == "retired"
    with acting_for(company.id):
        begun = Rollout.objects.get(deployment=deployment)
        assert not back_to_teacher(ended, actor="user:1", reason="too late", now=later)
    assert (begun.state, begun.share, begun.approved_at) == ("shadow", 0.0, later)
    assert rollouts_due(company.id) == [begun.id]
    assert move(company.id, old.id, now=later) == ramp.Hold("over", 0)
    assert start_rollouts(company.id, now=later) == 0


def test_a_newer_student_that_covers_less_waits_until_the_older_goes_back(company, now):
    old, later = under_way(company, now, state="full", share=1.0), now + timedelta(days=1)
    deployment = newer(old, later, coverage=0.4)
    assert start_rollouts(company.id, now=later) == 0
    assert reread(old).state == "full"
    with acting_for(company.id):
        back_to_teacher(reread(old), actor="user:1", reason="not now", now=later)
    assert start_rollouts(company.id, now=later) == 1
    with acting_for(company.id):
        assert Rollout.objects.get(state="shadow").deployment_id == deployment.id


def test_what_a_person_held_is_superseded_but_goes_beyond_shadow_only_on_a_person_s_word(company, now):
    old, later = under_way(company, now, state="ramping", share=0.25), now + timedelta(days=1)
    with acting_for(company.id):
        hold(reread(old), actor="user:1", reason="looking into it", now=now)
    newer(old, later, coverage=0.1)
    assert start_rollouts(company.id, now=later) == 1
    with acting_for(company.id):
        assert Rollout.objects.get(state="shadow").approved_at is None


def test_of_students_that_wait_the_newest_goes_and_the_others_leave_the_replicas(company, now):
    old = under_way(company, now, state="rolled_back")
    overtaken = newer(old, now + timedelta(days=1))
    newest = newer(old, now + timedelta(days=2), version=3)
    assert start_rollouts(company.id, now=now + timedelta(days=3)) == 1
    with acting_for(company.id):
        assert Rollout.objects.get(state="shadow").deployment_id == newest.id
        after = Deployment.objects.select_related("adapter").get(id=overtaken.id)
    assert (after.status, after.adapter.status) == ("draining", "retired")


def test_a_student_that_is_certified_after_a_newer_one_began_never_starts(company, now):
    current = under_way(company, now + timedelta(days=2), state="canary", share=0.05)
    late = newer(current, now)
    assert start_rollouts(company.id, now=now + timedelta(days=3)) == 0
    assert reread(current).state == "canary"
    with acting_for(company.id):
        assert Adapter.objects.get(id=late.adapter_id).status == "retired"


def test_a_newer_student_is_judged_by_the_promise_as_it_stands(company, now):
    old, later = under_way(company, now, state="full", share=1.0), now + timedelta(days=1)
    late = newer(old, later)
    with acting_for(company.id):
        Workload.objects.update(alpha=0.001)
    assert start_rollouts(company.id, now=later) == 0
    assert reread(old).state == "full"
    with acting_for(company.id):
        assert Adapter.objects.get(id=late.adapter_id).status == "retired"


def test_per_call_counts_deferred_calls_as_agreeing(company, now):
    rollout = make_rollout(company.id, now)
    with acting_for(company.id):
        Certificate.objects.update(promise="per_call")
        Workload.objects.update(promise="per_call")
    make_audits(rollout, 40, differing=4, at=now)
    make_audits(rollout, 60, differing=30, accepted=False, at=now)
    make_audits(rollout, 10, differing=10, at=now, kind="live")
    with acting_for(company.id):
        counted = tally(reread(rollout))
    assert (counted.accepted, counted.differing, counted.coverage) == (100, 4, 0.4)


def test_a_rival_sees_moves_and_supersedes_no_rollout(company, rival, now):
    rollout = under_way(company, now)
    newer(rollout, now + timedelta(days=1))
    assert start_rollouts(rival.id, now=now) == 0
    assert rollouts_due(rival.id) == []
    with pytest.raises(Rollout.DoesNotExist):
        move(rival.id, rollout.id, now=now)
