"""Holds how long a deployment that does not load is tried, and what becomes of its adapter."""

from datetime import timedelta

import pytest

from serving.deploy import deploy, deployments_due, drain_rejected, retire_drained
from serving.models import Deployment
from tenants.models import Event
from tenants.scope import acting_for
from tests.fakes.asgi import send_json
from tests.fakes.serve import Served
from tests.serving.makers import make_adapter, make_deployment, make_workload
from training.models import Adapter


@pytest.fixture
def deployment(company, now):
    """Its artifact is nowhere, so it cannot be loaded."""
    return make_deployment(make_adapter(make_workload(company.id, now), now), now, status="pending")


def state_of(deployment):
    with acting_for(deployment.tenant_id):
        found = Deployment.objects.select_related("adapter").get(id=deployment.id)
    return found.status, found.adapter.status


def test_a_deployment_that_fails_is_tried_at_once_then_hourly_and_its_adapter_rejected_after_a_day(
    company, deployment, now
):
    assert not deploy(company.id, deployment.id, now=now)
    assert state_of(deployment) == ("pending", "candidate")
    for hour in range(2, 25):
        moment = now + timedelta(hours=hour)
        assert deployments_due(company.id, now=moment) == [deployment.id]
        assert not deploy(company.id, deployment.id, now=moment)
        assert state_of(deployment) == ("failed", "candidate")
        assert deployments_due(company.id, now=moment + timedelta(minutes=59)) == []
    deploy(company.id, deployment.id, now=now + timedelta(hours=25))
    assert state_of(deployment) == ("failed", "rejected")
    with acting_for(company.id):
        assert "day" in Event.objects.get(kind="adapter.rejected").data["reason"]
    assert deployments_due(company.id, now=now + timedelta(days=2)) == []
    assert not deploy(company.id, deployment.id, now=now + timedelta(days=2))


def test_what_some_replica_did_load_of_a_rejected_adapter_is_taken_off(company, deployment, now, settings):
    asked = []

    async def replica(scope, receive, send):
        asked.append((scope["method"], scope["path"]))
        await send_json(send, 200, b"{}")

    with acting_for(company.id):
        Deployment.objects.update(status="failed", changed_at=now)
        deployment.adapter.advance("rejected", now, reason="no replica could load it for a day")
        name = deployment.adapter.name
    drain_rejected(company.id, now=now)
    assert state_of(deployment) == ("draining", "rejected")
    with Served(replica) as there:
        settings.ENCODER_URLS = settings.VLLM_URLS = [there.url]
        assert retire_drained(company.id, now=now + timedelta(minutes=1)) == 1
    assert ("DELETE", f"/v1/adapters/{name}") in asked
    assert state_of(deployment) == ("gone", "rejected")


@pytest.mark.parametrize(("status", "is_gone"), [(200, True), (404, True), (500, False)])
def test_an_adapter_is_gone_once_every_replica_says_so(company, deployment, now, settings, status, is_gone):
    async def encoder(scope, receive, send):
        await send_json(send, 200, b"{}")

    async def engine(scope, receive, send):
        await send_json(send, status, b"{}")

    with acting_for(company.id):
        Deployment.objects.update(status="draining", changed_at=now)
        Adapter.objects.update(rung="lora")
    with Served(encoder) as one, Served(engine) as other:
        settings.ENCODER_URLS, settings.VLLM_URLS = [one.url], [other.url]
        assert retire_drained(company.id, now=now + timedelta(hours=1)) == is_gone
    assert state_of(deployment)[0] == ("gone" if is_gone else "draining")


def test_a_replica_that_is_away_for_a_day_is_not_waited_for(company, deployment, now, settings):
    settings.ENCODER_URLS = settings.VLLM_URLS = ["http://127.0.0.1:9"]
    with acting_for(company.id):
        Deployment.objects.update(status="draining", changed_at=now)
    assert retire_drained(company.id, now=now + timedelta(hours=23)) == 0
    assert retire_drained(company.id, now=now + timedelta(hours=25)) == 1
    assert state_of(deployment)[0] == "gone"


def test_a_rival_deploys_nothing_of_the_company_s(company, rival, deployment, now):
    assert deployments_due(rival.id, now=now) == []
    with pytest.raises(Deployment.DoesNotExist):
        deploy(rival.id, deployment.id, now=now)
