"""What the broker may wake a worker for: handing events to webhooks, and sending them."""

from datetime import UTC, datetime
from uuid import UUID

from celery import shared_task

from tenants.wake import wake
from tenants.webhooks import drain, endpoints_due, fan_out


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def fan_out_due(**_: object) -> None:
    """Make deliveries of the events that have none."""
    fan_out(_now())


@shared_task(ignore_result=True)
def deliver_due(**_: object) -> None:
    """Wake a worker for each endpoint that is due something."""
    for tenant_id, endpoint_id in endpoints_due(_now()):
        wake(deliver_to, tenant_id=tenant_id, endpoint_id=endpoint_id)


@shared_task(ignore_result=True)
def deliver_to(*, tenant_id: str, endpoint_id: str, **_: object) -> None:
    """Send one endpoint what it is due."""
    drain(UUID(tenant_id), UUID(endpoint_id), clock=_now)
