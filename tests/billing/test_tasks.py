"""The looks that a worker takes by itself, by the clock on its wall."""

from datetime import UTC, datetime, timedelta

import pytest

from billing import tasks
from billing.models import SavingsStatement
from ingestion.core.calls import Arm
from tenants.scope import acting_for
from tests.billing.conftest import Books


@pytest.fixture
def today(company) -> Books:
    return Books(company.id, datetime.now(UTC))


def test_calls_of_today_are_on_the_statement_after_two_looks(today):
    workload = today.workload()
    at = today.now - timedelta(seconds=60)
    today.calls(40, workload=workload, arm=Arm.CONTROL, at=at)
    today.calls(10, workload=workload, arm=Arm.STUDENT, at=at)
    for _ in range(2):
        tasks.roll_up_tenant(tenant_id=str(today.tenant_id), of_a_later_version=1)
        tasks.keep_tenant_statements(tenant_id=str(today.tenant_id), of_a_later_version=1)
    with acting_for(today.tenant_id):
        calls = sum(statement.calls for statement in SavingsStatement.objects.all())
    assert calls == 50
