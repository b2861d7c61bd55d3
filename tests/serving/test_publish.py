"""What the gateways are told of a workload, by where its rollout stands."""

import pytest
from django.conf import settings

from ingestion.models import Fingerprint
from serving.models import Deployment
from serving.publish import make_snapshot
from tenants.scope import acting_for
from tests.serving.makers import make_rollout


def published(tenant_id, workload_id, now):
    with acting_for(tenant_id):
        Fingerprint.objects.create(digest="f" * 32, workload_id=workload_id)
    snapshot = make_snapshot(now)
    return snapshot, snapshot.tenants[str(tenant_id)].routes["f" * 32]


@pytest.mark.parametrize(
    ("state", "share", "audited"),
    [("canary", 0.05, "RAMP_AUDIT_SHARE"), ("ramping", 0.5, "RAMP_AUDIT_SHARE"), ("full", 1.0, "AUDIT_SHARE")],
)
def test_answers_are_audited_more_often_on_the_way_to_full(company, now, state, share, audited):
    rollout = make_rollout(company.id, now, state=state, share=share)
    _, route = published(company.id, rollout.workload_id, now)
    assert (route.state, route.student_share) == (state, share)
    assert route.audit_share == getattr(settings, audited)
    assert settings.AUDIT_SHARE < settings.RAMP_AUDIT_SHARE


def test_no_student_is_published_that_was_rolled_back_or_is_not_live(company, rival, now):
    theirs = make_rollout(rival.id, now, state="rolled_back")
    _, route = published(rival.id, theirs.workload_id, now)
    assert route.student is None and route.student_share == 0 and route.workload_id == str(theirs.workload_id)

    ours = make_rollout(company.id, now, state="full", share=1.0)
    with acting_for(company.id):
        Deployment.objects.update(status="draining")
    snapshot, route = published(company.id, ours.workload_id, now)
    assert route.student is None and route.student_share == 0
    assert set(snapshot.tenants[str(rival.id)].routes) == {"f" * 32}
    assert snapshot.tenants[str(rival.id)].routes["f" * 32].workload_id == str(theirs.workload_id)
