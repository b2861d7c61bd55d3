"""Holds that each tenant is looked after by itself: what breaks for one is no other's loss."""

import pytest

from config.celery import app
from ingestion.models import Dataset
from serving.models import Deployment
from serving.tasks import deployments_due
from tenants.models import tenant_ids
from tenants.scope import acting_for
from tests.serving.makers import make_adapter, make_workload


@pytest.fixture
def at_once():
    """Tasks run where they are asked for, and what they raise stays theirs, as on a worker."""
    app.conf.task_always_eager = True
    yield
    app.conf.task_always_eager = False


def test_one_tenant_s_fault_stops_no_other(company, rival, at_once, now):
    broken, sound = tenant_ids()
    for tenant_id in (broken, sound):
        make_adapter(make_workload(tenant_id, now), now)
    with acting_for(broken):
        Dataset.objects.update(template={"system": 5})
    deployments_due(unknown="argument")
    with acting_for(broken):
        assert not Deployment.objects.exists()
    with acting_for(sound):
        assert Deployment.objects.count() == 1
