"""What the broker may wake a worker for: deploying, evaluating, certifying, moving rollouts, auditing."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task

from serving import audit as audits
from serving import certify_adapter, deploy, evaluate, limits, rollout
from serving.counters import UnableToCount
from tenants.models import tenant_ids
from tenants.wake import alone_at, wake

log = logging.getLogger(__name__)

LONGEST = 60  # seconds that a look at the replicas takes


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def deployments_due(**_: Any) -> None:
    """Look at each tenant's deployments, in a task of its own, so that one tenant's fault stops no other."""
    for tenant_id in tenant_ids():
        wake(keep_deployments, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_deployments(*, tenant_id: str, **_: Any) -> None:
    """Open a tenant's deployments for candidates, load what is not loaded, take off what is to go."""
    tenant = UUID(tenant_id)
    deploy.open_deployments(tenant, now=_now())
    deploy.drain_rejected(tenant, now=_now())
    for deployment_id in deploy.deployments_due(tenant, now=_now()):
        wake(load, tenant_id=tenant, deployment_id=deployment_id)
    with alone_at("retire", tenant, seconds=LONGEST) as mine:
        if mine:
            deploy.retire_drained(tenant, now=_now())


@shared_task(ignore_result=True)
def load(*, tenant_id: str, deployment_id: str, **_: Any) -> None:
    """Load one deployment where it is missing."""
    deploy.deploy(UUID(tenant_id), UUID(deployment_id), now=_now())


@shared_task(ignore_result=True)
def evaluations_due(**_: Any) -> None:
    """Look at each tenant's evaluations."""
    for tenant_id in tenant_ids():
        wake(keep_evaluations, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_evaluations(*, tenant_id: str, **_: Any) -> None:
    """Evaluate what is live and unjudged, and certify what is evaluated."""
    tenant = UUID(tenant_id)
    for deployment_id in evaluate.evaluations_due(tenant, now=_now()):
        wake(judge, tenant_id=tenant, deployment_id=deployment_id)
    for evaluation_id in certify_adapter.certificates_due(tenant):
        wake(certify, tenant_id=tenant, evaluation_id=evaluation_id)


@shared_task(ignore_result=True, soft_time_limit=None, time_limit=None)  # its lease bounds it, a batch at a time
def judge(*, tenant_id: str, deployment_id: str, **_: Any) -> None:
    """Evaluate one deployment on its replica."""
    try:
        evaluate.evaluate(UUID(tenant_id), UUID(deployment_id), clock=_now)
    except evaluate.UnableToEvaluate as error:
        log.warning("evaluation of deployment %s is put off: %s", deployment_id, error)


@shared_task(ignore_result=True)
def certify(*, tenant_id: str, evaluation_id: str, **_: Any) -> None:
    """Certify one adapter on its evaluation, if that is still to be done."""
    if UUID(evaluation_id) in certify_adapter.certificates_due(UUID(tenant_id)):
        certify_adapter.certify_adapter(UUID(tenant_id), UUID(evaluation_id), now=_now())


@shared_task(ignore_result=True)
def rollouts_due(**_: Any) -> None:
    """Look at each tenant's rollouts."""
    for tenant_id in tenant_ids():
        wake(keep_rollouts, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_rollouts(*, tenant_id: str, **_: Any) -> None:
    """Start rollouts of a tenant's accepted adapters, and move those in play."""
    tenant = UUID(tenant_id)
    rollout.start_rollouts(tenant, now=_now())
    for rollout_id in rollout.rollouts_due(tenant):
        wake(move, tenant_id=tenant, rollout_id=rollout_id)


@shared_task(ignore_result=True)
def move(*, tenant_id: str, rollout_id: str, **_: Any) -> None:
    """Decide one rollout's next step."""
    rollout.move(UUID(tenant_id), UUID(rollout_id), now=_now())


@shared_task(ignore_result=True)
def limits_due(**_: Any) -> None:
    """Look at each tenant's limits."""
    for tenant_id in tenant_ids():
        wake(keep_limits, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_limits(*, tenant_id: str, **_: Any) -> None:
    """Count a tenant's log in where that is due, and tell of limits that come near."""
    try:
        limits.watch_limits(UUID(tenant_id), now=_now())
    except UnableToCount as error:
        log.warning("limits of tenant %s are not looked at: %s", tenant_id, error)


@shared_task(ignore_result=True)
def audits_due(**_: Any) -> None:
    """Look at each tenant's marked calls."""
    for tenant_id in tenant_ids():
        wake(keep_audits, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_audits(*, tenant_id: str, **_: Any) -> None:
    """Carry out the audits that gateways have marked for a tenant."""
    for rollout_id in audits.audits_due(UUID(tenant_id)):
        wake(audit, tenant_id=UUID(tenant_id), rollout_id=rollout_id)


@shared_task(ignore_result=True)
def audit(*, tenant_id: str, rollout_id: str, **_: Any) -> None:
    """Carry out one rollout's audits."""
    audits.audit_batches(UUID(tenant_id), UUID(rollout_id), clock=_now)
