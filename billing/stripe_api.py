"""The few things we ask of Stripe, in our own words; the only file that knows its library.

UnableToInvoice: what went wrong, without what was sent. `permanent` says that trying again unchanged is useless.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import stripe
from django.conf import settings

TIMEOUT_S: Final = 20
DAYS_UNTIL_DUE: Final = 30
OUR_INVOICE: Final = "understudy_invoice"  # the metadata by which an invoice is found again


class UnableToInvoice(Exception):
    """Stripe did not do what it was asked."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


@dataclass(frozen=True, slots=True)
class StripeInvoice:
    """An invoice as Stripe has it. `subtotal_cents` is nought until its line is on it."""

    id: str
    status: str  # draft, open, paid, void, uncollectible
    subtotal_cents: int
    hosted_url: str
    paid_at: datetime | None


class StripeApi:
    """A connection to one Stripe account. Every write carries an idempotency key that derives from a row of ours."""

    def __init__(self, *, api_key: str, api_base: str = "") -> None:
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=2,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        )

    def create_customer(self, *, tenant_id: UUID, name: str, email: str) -> str:
        """The customer's id. Raises UnableToInvoice, as all of these do."""
        with _translated():
            made = self._client.v1.customers.create(
                {"name": name, "email": email, "metadata": {"understudy_tenant": str(tenant_id)}},
                {"idempotency_key": f"customer-{tenant_id}"},
            )
        return made.id

    def find_invoice(self, *, customer_id: str, invoice_id: UUID) -> StripeInvoice | None:
        """The invoice that was made for a row of ours, however long ago; None if there is none."""
        with _translated():
            listed = self._client.v1.invoices.list({"customer": customer_id, "limit": 100})
            for found in listed.auto_paging_iter():
                if found.metadata and OUR_INVOICE in found.metadata and found.metadata[OUR_INVOICE] == str(invoice_id):
                    return _read(found)
        return None

    def create_draft(self, *, customer_id: str, invoice_id: UUID, currency: str, number: str) -> StripeInvoice:
        """An invoice with nothing on it yet."""
        with _translated():
            made = self._client.v1.invoices.create(
                {
                    "customer": customer_id,
                    "currency": currency.lower(),
                    "collection_method": "send_invoice",
                    "days_until_due": DAYS_UNTIL_DUE,
                    "auto_advance": False,
                    "pending_invoice_items_behavior": "exclude",
                    "description": f"Statement {number}",
                    "metadata": {OUR_INVOICE: str(invoice_id), "understudy_statement": number},
                },
                {"idempotency_key": f"invoice-{invoice_id}"},
            )
        return _read(made)

    def add_line(
        self, draft: StripeInvoice, *, customer_id: str, invoice_id: UUID, amount: Decimal, currency: str, text: str
    ) -> None:
        """Put the one line onto a draft."""
        with _translated():
            self._client.v1.invoice_items.create(
                {
                    "customer": customer_id,
                    "invoice": draft.id,
                    "amount": in_cents(amount),
                    "currency": currency.lower(),
                    "description": text,
                },
                {"idempotency_key": f"line-{invoice_id}"},
            )

    def finalize(self, draft: StripeInvoice, *, invoice_id: UUID) -> StripeInvoice:
        """Make a draft a claim; Stripe sends it and follows it up from here."""
        with _translated():
            made = self._client.v1.invoices.finalize_invoice(
                draft.id, {"auto_advance": True}, {"idempotency_key": f"finalize-{invoice_id}"}
            )
        return _read(made)

    def read_invoice(self, stripe_invoice_id: str) -> StripeInvoice:
        """An invoice as it is now."""
        with _translated():
            return _read(self._client.v1.invoices.retrieve(stripe_invoice_id))


def stripe_from_settings() -> StripeApi | None:
    """The operator's account, or None where none is set: statements are then made, and nobody is charged."""
    if not settings.STRIPE_API_KEY:
        return None
    return StripeApi(api_key=settings.STRIPE_API_KEY, api_base=settings.STRIPE_API_BASE)


def in_cents(amount: Decimal) -> int:
    """A rounded amount in the currency's hundredths."""
    return int(amount * 100)


def _read(invoice: stripe.Invoice) -> StripeInvoice:
    paid_at = invoice.status_transitions.paid_at
    return StripeInvoice(
        id=invoice.id,
        status=invoice.status or "draft",
        subtotal_cents=invoice.subtotal,
        hosted_url=getattr(invoice, "hosted_invoice_url", None) or "",
        paid_at=datetime.fromtimestamp(paid_at, UTC) if paid_at else None,
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Stripe's errors as ours. Their messages quote what was sent, so only their names come along."""
    try:
        yield
    except (stripe.InvalidRequestError, stripe.AuthenticationError, stripe.PermissionError) as error:
        raise UnableToInvoice(_named(error), permanent=True) from None
    except stripe.StripeError as error:
        raise UnableToInvoice(_named(error), permanent=False) from None


def _named(error: stripe.StripeError) -> str:
    return f"{type(error).__name__} (status {error.http_status}, code {error.code}, request {error.request_id})"
