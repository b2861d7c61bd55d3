"""A month's account adds up, shows its doubt, and never changes once it is closed."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.ledger import roll_up
from billing.models import Invoice, SavingsStatement
from billing.statement import (
    GRACE,
    UnableToClose,
    balance,
    close_statement,
    keep_statements,
    refresh_statement,
    tenants_with_books,
)
from ingestion.core.calls import Arm
from tenants.models import Event, Tenant
from tenants.scope import acting_for
from tenants.standing import suspend
from tests.billing.conftest import CALL_COST

AFTER = datetime(2026, 4, 1, tzinfo=UTC) + GRACE


@pytest.fixture
def month(books, now, settings):
    """200 calls, half of them the student's, with every overhead: a saving of 100 calls less what it took."""
    settings.REPLICA_HOURLY_COST = Decimal("0.36")
    workload = books.workload()
    books.calls(100, workload=workload, arm=Arm.CONTROL)
    books.calls(100, workload=workload, arm=Arm.STUDENT)
    run = books.run(workload, cost=Decimal("0.02"))
    books.audit(workload, run, cost=Decimal("0.003"))
    roll_up(books.tenant_id, now=now)
    return refresh_statement(books.tenant_id, at=now, now=now)


def test_a_statement_is_what_the_teacher_would_have_cost_less_all_that_was_spent(month, books):
    assert month.number == f"US-2026-03-{str(books.tenant_id)[:8]}"
    assert (month.calls, month.student_calls) == (200, 100)
    assert (month.counterfactual, month.teacher_cost) == (200 * CALL_COST, 100 * CALL_COST)
    assert (month.audit_cost, month.training_cost, month.serving_cost) == (
        Decimal("0.003"),
        Decimal("0.02"),
        Decimal("0.0002"),
    )
    assert month.saving == Decimal("0.26") - Decimal("0.0232")
    assert month.fee == Decimal("0.05")  # a fifth of 0.2368, rounded once


def test_the_entries_of_a_statement_balance_with_the_facts(month, books, now):
    assert balance(month).even
    books.calls(1)
    uneven = {line.name for line in balance(month).lines if line.by_entries != line.by_facts}
    assert uneven == {"calls", "teacher"}


def test_equal_calls_leave_no_doubt_and_different_ones_do(month, books, now):
    assert month.saving_low == month.saving == month.saving_high
    workload = books.workload("mixed")
    books.calls(20, workload=workload, arm=Arm.CONTROL)
    books.calls(20, workload=workload, arm=Arm.CONTROL, read=2000)
    books.calls(50, workload=workload, arm=Arm.STUDENT)
    roll_up(books.tenant_id, now=now)
    doubted = refresh_statement(books.tenant_id, at=now, now=now)
    assert doubted.saving_low < doubted.saving < doubted.saving_high


def test_a_negative_saving_is_shown_and_brings_no_fee(books, now):
    books.run(books.workload(), cost=Decimal("12.5"))
    roll_up(books.tenant_id, now=now)
    statement = refresh_statement(books.tenant_id, at=now, now=now)
    assert (statement.saving, statement.fee) == (Decimal("-12.5"), Decimal(0))


@pytest.mark.parametrize(("spent", "fee"), [("0.025", "0.00"), ("0.075", "0.02"), ("0.0751", "0.02"), ("1.5", "0.30")])
def test_the_fee_is_rounded_once_and_half_to_even(books, now, spent, fee):
    """Teacher calls of an unequal price stand for a saving of a known size."""
    workload = books.workload()
    books.calls(2, workload=workload, teacher_cost=Decimal(spent), read=int(Decimal(spent) * 400_000), wrote=0)
    books.calls(1, workload=workload, arm=Arm.STUDENT, student_ms=0)
    roll_up(books.tenant_id, now=now)
    statement = refresh_statement(books.tenant_id, at=now, now=now)
    assert (statement.saving, statement.fee) == (Decimal(spent), Decimal(fee))


def test_a_tenants_own_share_goes_before_the_operators(month, books, now):
    with acting_for(books.tenant_id):
        Tenant.objects.update(savings_share=Decimal("0.5"))
    again = refresh_statement(books.tenant_id, at=now, now=now)
    assert (again.id, again.share, again.fee) == (month.id, Decimal("0.5"), Decimal("0.12"))


def test_a_month_is_not_closed_while_late_calls_may_come(month):
    with pytest.raises(UnableToClose):
        close_statement(month, now=AFTER - timedelta(seconds=1))


def test_closing_takes_in_the_months_last_calls_and_then_nothing_more(month, books, now):
    books.calls(10, at=now + timedelta(days=2))  # nobody has looked at these hours yet
    assert close_statement(month, now=AFTER)
    assert not close_statement(month, now=AFTER)
    books.calls(10, at=now + timedelta(days=2))
    closed = refresh_statement(books.tenant_id, at=now, now=AFTER + timedelta(days=1))
    assert (closed.status, closed.calls, closed.closed_at) == ("closed", 210, AFTER)
    roll_up(books.tenant_id, now=AFTER)
    assert refresh_statement(books.tenant_id, at=now, now=AFTER).calls == 210
    with acting_for(books.tenant_id):
        assert Event.objects.filter(kind="statement.closed").count() == 1


def test_a_call_belongs_to_the_month_it_began_in(books, now):
    end = datetime(2026, 4, 1, tzinfo=UTC)
    books.calls(1, at=end - timedelta(microseconds=1))
    books.calls(1, at=end)
    roll_up(books.tenant_id, now=end)
    march, april = (refresh_statement(books.tenant_id, at=at, now=end) for at in (end - timedelta(days=1), end))
    assert (march.calls, april.calls) == (1, 1)
    assert march.ends_at == april.starts_at == end


def test_last_month_is_kept_until_it_closes_by_itself(month, books, now):
    first_look = keep_statements(books.tenant_id, now=datetime(2026, 4, 1, 1, tzinfo=UTC))
    assert [statement.number[3:10] for statement in sorted(first_look, key=lambda each: each.number)] == [
        "2026-03",
        "2026-04",
    ]
    assert [statement.number[3:10] for statement in keep_statements(books.tenant_id, now=AFTER)] == ["2026-04"]


def test_a_suspended_tenants_last_month_is_closed_and_no_other_is_opened(month, books, now):
    suspend(books.tenant_id, actor="operator:1", now=now)
    assert tenants_with_books() == [books.tenant_id]
    assert len(keep_statements(books.tenant_id, now=datetime(2026, 4, 1, 1, tzinfo=UTC))) == 1
    assert keep_statements(books.tenant_id, now=AFTER) == []
    with acting_for(books.tenant_id):
        statement = SavingsStatement.objects.get()
    assert (statement.status, statement.calls) == ("closed", 200)


def test_a_suspended_tenant_is_looked_at_until_it_has_paid(month, books, rival, now):
    suspend(books.tenant_id, actor="operator:1", now=now)
    suspend(rival.id, actor="operator:1", now=now)
    close_statement(month, now=AFTER)
    assert tenants_with_books() == [books.tenant_id]
    with acting_for(books.tenant_id):
        facts = {"amount": 1, "currency": "USD", "created_at": now}
        invoice = Invoice.objects.create(statement=month, status="issued", **facts)
    assert tenants_with_books() == [books.tenant_id]
    with acting_for(books.tenant_id):
        invoice.advance("paid", now)
    assert tenants_with_books() == []


def test_a_rival_never_sees_a_statement(month, rival):
    with acting_for(rival.id):
        assert list(SavingsStatement.objects.all()) == []
        assert not SavingsStatement.objects.filter(id=month.id).update(fee=0)
