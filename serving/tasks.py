"""What the broker may wake a worker for: deploying, evaluating, certifying, moving rollouts, auditing."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery import shared_task

from serving import audit as audits
from serving import certify_adapter, deploy, evaluate, rollout
from tenants.models import tenant_ids

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def deployments_due(**_: Any) -> None:
    """Open deployments for candidates, load what is not loaded, take off what is to go."""
    for tenant_id in tenant_ids():
        deploy.open_deployments(tenant_id, now=_now())
        deploy.drain_rejected(tenant_id, now=_now())
        deploy.retire_drained(tenant_id, now=_now())
        for deployment_id in deploy.deployments_due(tenant_id, now=_now()):
            load.delay(tenant_id=str(tenant_id), deployment_id=str(deployment_id))


@shared_task(ignore_result=True)
def load(*, tenant_id: str, deployment_id: str, **_: Any) -> None:
    """Load one deployment where it is missing."""
    deploy.deploy(UUID(tenant_id), UUID(deployment_id), now=_now())


@shared_task(ignore_result=True)
def evaluations_due(**_: Any) -> None:
    """Evaluate what is live and unjudged, and certify what is evaluated."""
    for tenant_id in tenant_ids():
        for deployment_id in evaluate.evaluations_due(tenant_id, now=_now()):
            judge.delay(tenant_id=str(tenant_id), deployment_id=str(deployment_id))
        for evaluation_id in certify_adapter.certificates_due(tenant_id):
            certify_adapter.certify_adapter(tenant_id, evaluation_id, now=_now())


@shared_task(ignore_result=True)
def judge(*, tenant_id: str, deployment_id: str, **_: Any) -> None:
    """Evaluate one deployment on its replica."""
    try:
        evaluate.evaluate(UUID(tenant_id), UUID(deployment_id), now=_now())
    except evaluate.UnableToEvaluate as error:
        log.warning("evaluation of deployment %s is put off: %s", deployment_id, error)


@shared_task(ignore_result=True)
def rollouts_due(**_: Any) -> None:
    """Start rollouts of accepted adapters, and move those in play."""
    for tenant_id in tenant_ids():
        rollout.start_rollouts(tenant_id, now=_now())
        for rollout_id in rollout.rollouts_due(tenant_id):
            move.delay(tenant_id=str(tenant_id), rollout_id=str(rollout_id))


@shared_task(ignore_result=True)
def move(*, tenant_id: str, rollout_id: str, **_: Any) -> None:
    """Decide one rollout's next step."""
    rollout.move(UUID(tenant_id), UUID(rollout_id), now=_now())


@shared_task(ignore_result=True)
def audits_due(**_: Any) -> None:
    """Carry out the audits that gateways have marked."""
    for tenant_id in tenant_ids():
        for rollout_id in audits.audits_due(tenant_id):
            audit.delay(tenant_id=str(tenant_id), rollout_id=str(rollout_id))


@shared_task(ignore_result=True)
def audit(*, tenant_id: str, rollout_id: str, **_: Any) -> None:
    """Carry out one rollout's audits."""
    audits.audit(UUID(tenant_id), UUID(rollout_id), now=_now())
