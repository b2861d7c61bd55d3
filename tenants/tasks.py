"""What the broker may wake a worker for: handing events to webhooks, and sending them."""

from datetime import UTC, datetime
from uuid import UUID

from celery import shared_task

from tenants.webhooks import deliver, deliveries_due, fan_out


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def fan_out_due(**_: object) -> None:
    """Make deliveries of the events that have none."""
    fan_out(_now())


@shared_task(ignore_result=True)
def deliver_due(**_: object) -> None:
    """Wake a worker for each delivery that is due."""
    for tenant_id, delivery_id in deliveries_due(_now()):
        attempt.delay(tenant_id=str(tenant_id), delivery_id=str(delivery_id))


@shared_task(ignore_result=True)
def attempt(*, tenant_id: str, delivery_id: str, **_: object) -> None:
    """Try one delivery once."""
    deliver(UUID(tenant_id), UUID(delivery_id), now=_now())
