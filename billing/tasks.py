"""What the broker may wake a worker for: ledger, statements, invoices. Each look may be missed or doubled."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

from celery import shared_task

from billing.invoice import invoices_to_issue, invoices_to_refresh, issue_invoice, refresh_invoice
from billing.ledger import roll_up
from billing.statement import keep_statements, tenants_with_books
from billing.stripe_api import UnableToInvoice, stripe_from_settings
from tenants.wake import wake

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@shared_task(ignore_result=True)
def roll_up_due(**_: object) -> None:
    """Bring each tenant's ledger up to its calls."""
    for tenant_id in tenants_with_books():
        wake(roll_up_tenant, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def roll_up_tenant(*, tenant_id: str, **_: object) -> None:
    """Append what one tenant's ledger lacks."""
    roll_up(UUID(tenant_id), now=_now())


@shared_task(ignore_result=True)
def statements_due(**_: object) -> None:
    """Bring each tenant's statements up to its ledger, and close the months that are over."""
    for tenant_id in tenants_with_books():
        wake(keep_tenant_statements, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def keep_tenant_statements(*, tenant_id: str, **_: object) -> None:
    """One tenant's statements."""
    keep_statements(UUID(tenant_id), now=_now())


@shared_task(ignore_result=True)
def invoices_due(**_: object) -> None:
    """Ask for what is owed, where an account at Stripe is set."""
    if stripe_from_settings() is not None:
        for tenant_id in tenants_with_books():
            wake(invoice_tenant, tenant_id=tenant_id)


@shared_task(ignore_result=True)
def invoice_tenant(*, tenant_id: str, **_: object) -> None:
    """Issue one tenant's invoices, and see which were paid."""
    stripe = stripe_from_settings()
    if stripe is None:
        return
    for statement in invoices_to_issue(UUID(tenant_id)):
        with _one_fault_stops_one(statement.number):
            issue_invoice(statement, stripe=stripe, now=_now())
    for invoice in invoices_to_refresh(UUID(tenant_id)):
        with _one_fault_stops_one(invoice.id):
            refresh_invoice(invoice, stripe=stripe, now=_now())


@contextmanager
def _one_fault_stops_one(name: object) -> Iterator[None]:
    """What Stripe refuses today is looked at again by the next look; the rest must not wait for it."""
    try:
        yield
    except UnableToInvoice as error:
        log.warning("%s: invoicing goes on later: %s", name, error)
