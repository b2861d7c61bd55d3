"""Asks for our share of a closed statement, exactly once, whatever fails in between.

Our row comes first and is the guard: one a statement, and claimed by one worker at a time, since Stripe forgets
idempotency keys after a day. Stripe is spoken to outside any transaction; what a worker that died had made there is
found by our row's id before anything is made again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Q

from billing.models import Invoice, SavingsStatement, Subscription
from billing.stripe_api import StripeApi, StripeInvoice, UnableToInvoice, in_cents
from tenants.models import Membership, Tenant
from tenants.scope import acting_for

CLAIM: Final = timedelta(minutes=10)  # longer than all requests of one attempt with their retries
PAUSE: Final = timedelta(days=1)  # after what a person must put right first
_STATES: Final = {"paid": Invoice.Status.PAID, "void": Invoice.Status.VOID}


@dataclass(frozen=True, slots=True)
class Payer:
    """Whom Stripe is to ask."""

    tenant_id: UUID
    name: str
    email: str
    customer_id: str | None


def issue_invoice(statement: SavingsStatement, *, stripe: StripeApi, now: datetime) -> Invoice | None:
    """Ask for a closed statement's fee. None where there is nothing to ask for or another worker is at it.

    Safe to call as often as wanted: an issued invoice comes back as it is. Raises UnableToInvoice; the draft stays and
    the next call goes on from where this one came to.
    """
    with acting_for(statement.tenant_id):
        invoice = _draft(statement, now=now)
        if invoice is None or invoice.status != Invoice.Status.DRAFT:
            return invoice
        if not _claim(invoice, now=now):
            return None
        payer = _payer(statement.tenant_id)
    try:
        issued = _ask(invoice, statement.number, payer, stripe=stripe, now=now)
    except UnableToInvoice as error:
        with acting_for(statement.tenant_id):
            Invoice.objects.filter(id=invoice.id).update(claimed_until=now + PAUSE if error.permanent else None)
        raise
    with acting_for(statement.tenant_id):
        facts = {"stripe_invoice_id": issued.id, "hosted_url": issued.hosted_url, "issued_at": now}
        invoice.advance(Invoice.Status.ISSUED, now, **facts)
        invoice.refresh_from_db(from_queryset=Invoice.objects.all())
    return invoice


def refresh_invoice(invoice: Invoice, *, stripe: StripeApi, now: datetime) -> bool:
    """Take over from Stripe that an issued invoice was paid or made void. False if nothing changed."""
    if invoice.status != Invoice.Status.ISSUED:
        return False
    found = stripe.read_invoice(invoice.stripe_invoice_id)
    to = _STATES.get(found.status)
    if to is None:
        return False
    facts = {"paid_at": found.paid_at or now} if to == Invoice.Status.PAID else {}
    with acting_for(invoice.tenant_id):
        return invoice.advance(to, now, **facts)


def invoices_to_issue(tenant_id: UUID) -> list[SavingsStatement]:
    """Closed statements with a fee that nobody was asked for yet."""
    with acting_for(tenant_id):
        asked = Invoice.objects.exclude(status=Invoice.Status.DRAFT).values("statement_id")
        closed = SavingsStatement.objects.filter(status=SavingsStatement.Status.CLOSED, fee__gt=0)
        return list(closed.exclude(id__in=asked).order_by("starts_at"))


def invoices_to_refresh(tenant_id: UUID) -> list[Invoice]:
    """Invoices that Stripe may have news of."""
    with acting_for(tenant_id):
        return list(Invoice.objects.filter(status=Invoice.Status.ISSUED).order_by("issued_at"))


def _draft(statement: SavingsStatement, *, now: datetime) -> Invoice | None:
    """The statement's one invoice row, from the figures the statement was closed with."""
    closed = SavingsStatement.objects.filter(id=statement.id, status=SavingsStatement.Status.CLOSED, fee__gt=0).first()
    if closed is None:
        return None
    facts = {"amount": closed.fee, "currency": closed.currency, "created_at": now}
    invoice: Invoice = Invoice.objects.get_or_create(statement=closed, defaults=facts)[0]
    return invoice


def _claim(invoice: Invoice, *, now: datetime) -> bool:
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    claimed = Invoice.objects.filter(free, id=invoice.id, status=Invoice.Status.DRAFT).update(claimed_until=now + CLAIM)
    return bool(claimed)


def _payer(tenant_id: UUID) -> Payer:
    owner = Membership.objects.filter(role=Membership.Role.OWNER).select_related("user").order_by("id").first()
    subscription = Subscription.objects.first()
    return Payer(
        tenant_id=tenant_id,
        name=Tenant.objects.get().name,
        email=owner.user.email if owner else "",
        customer_id=subscription.stripe_customer_id if subscription else None,
    )


def _ask(invoice: Invoice, number: str, payer: Payer, *, stripe: StripeApi, now: datetime) -> StripeInvoice:
    """Bring Stripe's side to an issued invoice from whatever stage an earlier attempt left it in."""
    customer_id = payer.customer_id or _make_customer(payer, stripe=stripe, now=now)
    made = stripe.find_invoice(customer_id=customer_id, invoice_id=invoice.id) or stripe.create_draft(
        customer_id=customer_id, invoice_id=invoice.id, currency=invoice.currency, number=number
    )
    if made.subtotal_cents not in (0, in_cents(invoice.amount)):
        raise UnableToInvoice("the invoice at Stripe asks for another amount", permanent=True)
    if made.status != "draft":
        return made
    if made.subtotal_cents == 0:
        stripe.add_line(
            made,
            customer_id=customer_id,
            invoice_id=invoice.id,
            amount=invoice.amount,
            currency=invoice.currency,
            text=f"Share of the saving on statement {number}",
        )
    return stripe.finalize(made, invoice_id=invoice.id)


def _make_customer(payer: Payer, *, stripe: StripeApi, now: datetime) -> str:
    """Written down before anything else is made for it, so that a later attempt looks in the right place."""
    made = stripe.create_customer(tenant_id=payer.tenant_id, name=payer.name, email=payer.email)
    with acting_for(payer.tenant_id):
        facts = {"stripe_customer_id": made, "created_at": now}
        kept: Subscription = Subscription.objects.get_or_create(tenant_id=payer.tenant_id, defaults=facts)[0]
    return kept.stripe_customer_id
