"""What the broker may wake the trainer for."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task

from tenants.models import tenant_ids
from tenants.wake import wake
from training import launch
from training.taint import drop_tainted, taint_due


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def training_due(**_: Any) -> None:
    """Queue runs, mark what learnt from the erased and drop what is over of it, wake a trainer for each free run."""
    for tenant_id in tenant_ids():
        launch.queue_runs(tenant_id, now=_now())
        taint_due(tenant_id, now=_now())
        drop_tainted(tenant_id, now=_now())
    for tenant_id, run_id in launch.runs_due(_now()):
        wake(train, tenant_id=tenant_id, run_id=run_id)


@shared_task(ignore_result=True, soft_time_limit=None, time_limit=None)
def train(*, tenant_id: str, run_id: str, **_: Any) -> None:
    """Carry out one run, if it is still free."""
    launch.carry_out(UUID(tenant_id), UUID(run_id), clock=_now)
