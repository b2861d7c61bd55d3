"""What the operator decides about a tenant: whether it is served, and what share of its saving is agreed on."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from tenants.events import record_event
from tenants.models import Tenant
from tenants.scope import acting_for

Status = Tenant.Status


class UnableToAgree(Exception):
    """A share lies in [0, 1]."""


def suspend(tenant_id: UUID, *, actor: str, now: datetime) -> bool:
    """Refuse a tenant's calls and every change to it; what it may read stays. False if it was suspended already."""
    return _move(tenant_id, Status.ACTIVE, Status.SUSPENDED, "tenant.suspended", actor=actor, now=now)


def reinstate(tenant_id: UUID, *, actor: str, now: datetime) -> bool:
    """Serve a suspended tenant again. False if it was not suspended."""
    return _move(tenant_id, Status.SUSPENDED, Status.ACTIVE, "tenant.reinstated", actor=actor, now=now)


def agree_on_share(tenant_id: UUID, *, share: Decimal | None, actor: str, now: datetime) -> None:
    """Fix the share of the saving that is invoiced, from the statements still open on; None: the operator's own.

    Raises UnableToAgree.
    """
    if share is not None and (share.is_nan() or not 0 <= share <= 1):
        raise UnableToAgree("a share lies between 0 and 1")
    with acting_for(tenant_id):
        Tenant.objects.update(savings_share=share)
        agreed = None if share is None else str(share)
        record_event("tenant.share_agreed", now=now, actor=actor, subject_id=tenant_id, share=agreed)


def _move(tenant_id: UUID, old: str, new: str, kind: str, *, actor: str, now: datetime) -> bool:
    with acting_for(tenant_id):
        moved = Tenant.objects.filter(status=old).update(status=new)
        if moved:
            record_event(kind, now=now, actor=actor, subject_id=tenant_id)
    return bool(moved)
