"""One closed statement, one Stripe invoice, however often and by however many it is asked for."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connections

from billing import tasks
from billing.invoice import CLAIM, invoices_to_issue, issue_invoice, refresh_invoice
from billing.models import Invoice, SavingsStatement, Subscription
from billing.stripe_api import StripeApi, UnableToInvoice
from tenants.models import Event
from tenants.scope import acting_for
from tests.fakes.serve import free_port, wait_for

KEY = "sk_test_understudy"


class Stripe:
    """The fake's address, and what it holds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = StripeApi(api_key=KEY, api_base=url)

    def ask(self, path: str, *, method: str = "GET"):
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def invoices(self):
        return self.ask("/v1/invoices?limit=100")["data"]

    def requests(self):
        return self.ask("/_config/requests")


@pytest.fixture(scope="module")
def server():
    port = free_port()
    command = [sys.executable, "-m", "tests.fakes.stripe_server", "--port", str(port), "--from-scratch"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stripe = Stripe(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: process.poll() is None and _answers(stripe))
        yield stripe
    finally:
        process.kill()
        process.wait()


def _answers(stripe: Stripe) -> bool:
    try:
        return stripe.invoices() is not None
    except urllib.error.URLError:
        return False


@pytest.fixture
def stripe(server, settings) -> Stripe:
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = KEY, server.url
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/_config/data", method="DELETE"), timeout=10).close()
    return server


def closed_statement(tenant_id, now, *, fee="123.45", status="closed") -> SavingsStatement:
    with acting_for(tenant_id):
        return SavingsStatement.objects.create(
            number=f"US-2026-02-{str(tenant_id)[:8]}",
            starts_at=now - timedelta(days=40),
            ends_at=now - timedelta(days=10),
            status=status,
            saving=Decimal(fee) * 5,
            share=Decimal("0.2"),
            fee=Decimal(fee),
            currency="USD",
            updated_at=now,
        )


@pytest.fixture
def statement(company, now) -> SavingsStatement:
    return closed_statement(company.id, now)


def in_threads(count, work):
    def one(number):
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_an_invoice_asks_the_owner_for_the_fee_of_the_statement(stripe, statement, company, now):
    invoice = issue_invoice(statement, stripe=stripe.api, now=now)
    (asked,) = stripe.invoices()
    assert (asked["status"], asked["total"], asked["currency"]) == ("open", 12345, "usd")
    assert asked["customer_email"] == company.user.email
    assert asked["collection_method"] == "send_invoice"
    assert asked["metadata"] == {"understudy_invoice": str(invoice.id), "understudy_statement": statement.number}
    assert (invoice.status, invoice.stripe_invoice_id, invoice.issued_at) == ("issued", asked["id"], now)
    assert invoice.hosted_url == asked["hosted_invoice_url"]
    with acting_for(company.id):
        assert Event.objects.filter(kind="invoice.issued", subject_id=str(invoice.id)).count() == 1


def test_the_task_run_five_times_asks_once(stripe, statement, company):
    for _ in range(5):
        tasks.invoice_tenant(tenant_id=str(company.id), of_a_later_version=True)
    assert [asked["total"] for asked in stripe.invoices()] == [12345]
    with acting_for(company.id):
        assert Invoice.objects.get().status == "issued"


def test_the_task_run_by_many_at_once_asks_once(stripe, statement, company):
    in_threads(8, lambda _: tasks.invoice_tenant(tenant_id=str(company.id)))
    tasks.invoice_tenant(tenant_id=str(company.id))
    assert [asked["total"] for asked in stripe.invoices()] == [12345]
    with acting_for(company.id):
        assert Invoice.objects.get().status == "issued"
        assert Event.objects.filter(kind="invoice.issued").count() == 1


@pytest.mark.parametrize("stage", ["draft made", "line added", "finalized"])
def test_a_worker_that_died_on_the_way_is_gone_on_from(stripe, statement, company, now, stage):
    customer = stripe.api.create_customer(tenant_id=company.id, name="Northwind", email="owner@northwind.example")
    with acting_for(company.id):
        Subscription.objects.create(stripe_customer_id=customer, created_at=now)
        invoice = Invoice.objects.create(
            statement=statement, amount=statement.fee, currency="USD", created_at=now, claimed_until=now + CLAIM
        )
    names = {"customer_id": customer, "invoice_id": invoice.id}
    made = stripe.api.create_draft(**names, currency="USD", number=statement.number)
    if stage != "draft made":
        stripe.api.add_line(made, **names, amount=statement.fee, currency="USD", text="share")
    if stage == "finalized":
        stripe.api.finalize(made, invoice_id=invoice.id)
    assert issue_invoice(statement, stripe=stripe.api, now=now) is None  # the dead worker's claim still stands
    issued = issue_invoice(statement, stripe=stripe.api, now=now + CLAIM)
    assert (issued.status, issued.stripe_invoice_id) == ("issued", made.id)
    assert [(asked["id"], asked["total"], asked["status"]) for asked in stripe.invoices()] == [(made.id, 12345, "open")]


def test_an_invoice_far_back_in_the_list_is_found_before_another_is_made(stripe, company):
    customer = stripe.api.create_customer(tenant_id=company.id, name="Northwind", email="owner@northwind.example")
    ids = [uuid4() for _ in range(105)]
    for invoice_id in ids:
        stripe.api.create_draft(customer_id=customer, invoice_id=invoice_id, currency="USD", number="US")
    for invoice_id in (ids[0], ids[-1]):
        assert stripe.api.find_invoice(customer_id=customer, invoice_id=invoice_id) is not None
    assert stripe.api.find_invoice(customer_id=customer, invoice_id=uuid4()) is None


def test_another_amount_at_stripe_is_left_for_a_person(stripe, statement, company, now):
    customer = stripe.api.create_customer(tenant_id=company.id, name="Northwind", email="owner@northwind.example")
    with acting_for(company.id):
        Subscription.objects.create(stripe_customer_id=customer, created_at=now)
        invoice = Invoice.objects.create(statement=statement, amount=statement.fee, currency="USD", created_at=now)
    names = {"customer_id": customer, "invoice_id": invoice.id}
    made = stripe.api.create_draft(**names, currency="USD", number=statement.number)
    stripe.api.add_line(made, **names, amount=Decimal("1.00"), currency="USD", text="share")
    with pytest.raises(UnableToInvoice) as refused:
        issue_invoice(statement, stripe=stripe.api, now=now)
    assert refused.value.permanent
    assert issue_invoice(statement, stripe=stripe.api, now=now + timedelta(hours=1)) is None
    assert [asked["status"] for asked in stripe.invoices()] == ["draft"]


def test_while_stripe_is_away_the_draft_waits_and_is_issued_afterwards(stripe, statement, company, now):
    away = StripeApi(api_key=KEY, api_base=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnableToInvoice) as refused:
        issue_invoice(statement, stripe=away, now=now)
    assert not refused.value.permanent
    assert issue_invoice(statement, stripe=stripe.api, now=now).status == "issued"


def test_a_refused_key_is_for_a_person_and_is_not_in_the_message(stripe, statement, now):
    with pytest.raises(UnableToInvoice) as refused:
        issue_invoice(statement, stripe=StripeApi(api_key="rk_secret_value", api_base=stripe.url), now=now)
    assert refused.value.permanent
    assert "rk_secret_value" not in str(refused.value)


@pytest.mark.parametrize(("fee", "status"), [("0.00", "closed"), ("5.00", "open")])
def test_nothing_owed_and_nothing_final_is_not_asked_for(stripe, company, now, fee, status):
    statement = closed_statement(company.id, now, fee=fee, status=status)
    assert issue_invoice(statement, stripe=stripe.api, now=now) is None
    assert invoices_to_issue(company.id) == []
    assert stripe.invoices() == []


def test_a_paid_invoice_is_seen_as_paid_once(stripe, statement, company, now):
    invoice = issue_invoice(statement, stripe=stripe.api, now=now)
    assert not refresh_invoice(invoice, stripe=stripe.api, now=now)
    stripe.ask(f"/v1/invoices/{invoice.stripe_invoice_id}/pay_out_of_band", method="POST")
    tasks.invoice_tenant(tenant_id=str(company.id))
    tasks.invoice_tenant(tenant_id=str(company.id))
    with acting_for(company.id):
        paid = Invoice.objects.get()
        assert (paid.status, paid.paid_at is None) == ("paid", False)
        assert Event.objects.filter(kind="invoice.paid").count() == 1


def test_an_invoice_that_stripe_lost_does_not_hold_up_the_next(stripe, statement, company, now):
    lost, kept = statement, issue_invoice(statement, stripe=stripe.api, now=now)
    with acting_for(company.id):
        other = SavingsStatement.objects.get(id=lost.id)
        other.id, other.number, other.starts_at = uuid4(), "US-2026-01", now - timedelta(days=70)
        other.save(force_insert=True)
        facts = {"status": "issued", "issued_at": now - timedelta(days=9), "stripe_invoice_id": "in_lost"}
        Invoice.objects.create(statement=other, amount=1, currency="USD", created_at=now, **facts)
    stripe.ask(f"/v1/invoices/{kept.stripe_invoice_id}/pay_out_of_band", method="POST")
    tasks.invoice_tenant(tenant_id=str(company.id))
    with acting_for(company.id):
        assert Invoice.objects.get(id=kept.id).status == "paid"


def test_without_an_account_nobody_is_asked(stripe, statement, company, settings):
    settings.STRIPE_API_KEY = ""
    before = len(stripe.requests())
    tasks.invoices_due()
    tasks.invoice_tenant(tenant_id=str(company.id))
    assert len(stripe.requests()) == before


def test_a_rival_never_sees_an_invoice_and_is_never_asked(stripe, statement, rival, now):
    issue_invoice(statement, stripe=stripe.api, now=now)
    tasks.invoice_tenant(tenant_id=str(rival.id))
    with acting_for(rival.id):
        assert list(Invoice.objects.all()) == list(Subscription.objects.all()) == []
    assert len(stripe.invoices()) == 1
