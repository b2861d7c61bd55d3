"""What the broker may wake a worker for: finding workloads, freezing datasets, erasing, keeping partitions ahead."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task
from django.db import connection

from ingestion.curate import UnableToCurate, curate, curation_due
from ingestion.discover import discover_workloads
from ingestion.erase import carry_out_erasures, erasures_open
from tenants.models import tenant_ids
from tenants.wake import alone_at, wake

log = logging.getLogger(__name__)


LONGEST = 730  # seconds: a task is killed before


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def discovery_due(**_: Any) -> None:
    """Look at each tenant's traffic."""
    for tenant_id in tenant_ids():
        wake(discover, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def discover(*, tenant_id: str, **_: Any) -> None:
    """Find one tenant's workloads."""
    with alone_at("discover", UUID(tenant_id), seconds=LONGEST) as mine:
        if mine:
            discover_workloads(UUID(tenant_id), now=_now())


@shared_task(ignore_result=True)
def curation_due_everywhere(**_: Any) -> None:
    """Freeze datasets where enough pairs have come together."""
    for tenant_id in tenant_ids():
        for workload_id in curation_due(tenant_id):
            wake(freeze, tenant_id=tenant_id, workload_id=workload_id)


@shared_task(ignore_result=True)
def freeze(*, tenant_id: str, workload_id: str, **_: Any) -> None:
    """Freeze one workload's next dataset version."""
    with alone_at("freeze", UUID(tenant_id), seconds=LONGEST) as mine:
        if not mine or UUID(workload_id) not in curation_due(UUID(tenant_id)):
            return  # another worker was first
        try:
            curate(UUID(tenant_id), UUID(workload_id), now=_now())
        except UnableToCurate as error:
            log.info("workload %s: %d more usable pairs are needed", workload_id, error.missing)


@shared_task(ignore_result=True)
def erasures_due(**_: Any) -> None:
    """Carry out what tenants were asked to forget."""
    for tenant_id in erasures_open():
        wake(erase, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def erase(*, tenant_id: str, **_: Any) -> None:
    """Forget whom one tenant was asked to forget; one that is killed is taken up again soon."""
    with alone_at("erase", UUID(tenant_id), seconds=LONGEST) as mine:
        if mine:
            carry_out_erasures(UUID(tenant_id), clock=_now)


@shared_task(ignore_result=True)
def partitions_due(**_: Any) -> None:
    """Keep the coming months' partitions made."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT ingestion_make_partitions(%s)", [_now().date()])
