"""What the broker may wake the trainer for."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task

from tenants.models import tenant_ids
from tenants.wake import wake
from training import launch
from training.artifacts import UnableToStore
from training.leftovers import drop_strays, remove_leftovers
from training.taint import drop_tainted, taint_due

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def training_due(**_: Any) -> None:
    """Wake a trainer for each free run, and look at each tenant's datasets and adapters in tasks of their own."""
    for tenant_id, run_id in launch.runs_due(_now()):
        wake(train, tenant_id=tenant_id, run_id=run_id)
    for tenant_id in tenant_ids():
        wake(queue, tenant_id=tenant_id)
    for tenant_id in tenant_ids(suspended_too=True):  # an erasure does not wait for a bill
        wake(keep_adapters, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def queue(*, tenant_id: str, **_: Any) -> None:
    """Queue a tenant's runs."""
    launch.queue_runs(UUID(tenant_id), now=_now())


@shared_task(ignore_result=True)
def keep_adapters(*, tenant_id: str, **_: Any) -> None:
    """Mark what learnt from the erased, and drop the weights of what is over of it."""
    tenant = UUID(tenant_id)
    taint_due(tenant, now=_now())
    drop_tainted(tenant, now=_now())


@shared_task(ignore_result=True)
def leftovers_due(**_: Any) -> None:
    """Have a trainer look for rows that runs have left on its disk, and at each tenant's part of the store."""
    remove_leftovers(now=_now())
    for tenant_id in tenant_ids(suspended_too=True):
        wake(strays, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def strays(*, tenant_id: str, **_: Any) -> None:
    """Drop what a tenant's lost attempts have put into the store; one that is away is asked at the next look."""
    try:
        dropped = drop_strays(UUID(tenant_id))
    except UnableToStore as away:
        log.warning("artifacts that lost runs left may still be there: %s", away)
    else:
        log.info("%d artifacts of lost runs were dropped", len(dropped))


@shared_task(ignore_result=True, soft_time_limit=None, time_limit=None)
def train(*, tenant_id: str, run_id: str, **_: Any) -> None:
    """Carry out one run, if it is still free; what lost ones left on this disk goes first."""
    remove_leftovers(now=_now())
    launch.carry_out(UUID(tenant_id), UUID(run_id), clock=_now)
