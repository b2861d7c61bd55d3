"""Holds that the API tells a workload's spend and a statement's line items as the portal does, to the last digit."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client

from billing.ledger import roll_up
from billing.models import LedgerEntry
from billing.statement import refresh_statement
from ingestion.core.calls import Arm
from portal.figures import measure_spend
from tenants.scope import acting_for
from tests.billing.conftest import CALL_COST, Books

FIGURES = ("counterfactual", "teacher_cost", "audit_cost", "training_cost", "serving_cost", "saving")


def read(company, path, status=200):
    answer = Client(headers={"authorization": f"Bearer {company.minted.plain}"}).get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.content
    return answer.json()


@pytest.fixture
def today(company, settings):
    """Books of this hour, since the API's clock is the real one; of its middle, so that nothing falls into the next."""
    settings.REPLICA_HOURLY_COST = Decimal("0.36")
    return Books(company.id, datetime.now(UTC).replace(minute=30, second=0, microsecond=0))


@pytest.fixture
def workload(today):
    """100 calls, 60 of them the student's, with every overhead; and others' beside them."""
    routing, other = today.workload(), today.workload("other")
    today.calls(40, workload=routing, arm=Arm.CONTROL)
    today.calls(60, workload=routing, arm=Arm.STUDENT)
    today.calls(7, workload=other)
    today.calls(3)
    today.audit(routing, today.run(routing, cost=Decimal("0.02")), cost=Decimal("0.003"))
    roll_up(today.tenant_id, now=today.now)
    return routing


def test_a_workloads_spend_is_its_volume_and_its_money(company, workload):
    spend = read(company, f"workloads/{workload.id}/spend")
    assert (spend["workload_id"], spend["currency"]) == (str(workload.id), "USD")
    assert (spend["calls"], spend["student_calls"], spend["coverage"]) == (100, 60, 0.6)
    wanted = (100 * CALL_COST, 40 * CALL_COST, Decimal("0.003"), Decimal("0.02"), Decimal("0.00012"))
    assert tuple(Decimal(spend[name]) for name in FIGURES) == (*wanted, wanted[0] - sum(wanted[1:]))


def test_a_spend_is_what_the_portal_shows(company, workload, today):
    spend = read(company, f"workloads/{workload.id}/spend")
    with acting_for(company.id):
        shown = measure_spend(datetime.now(UTC))[workload.id]
    assert (spend["calls"], spend["student_calls"], spend["coverage"]) == (
        shown.calls,
        shown.student_calls,
        shown.coverage,
    )
    assert (Decimal(spend["counterfactual"]), Decimal(spend["saving"])) == (shown.would, shown.saving)


def test_a_spend_looks_thirty_days_back(company, today):
    workload, long_ago = today.workload(), today.now - timedelta(days=31)
    for at in (long_ago, today.now - timedelta(days=29)):
        today.calls(2, workload=workload, at=at)
        roll_up(today.tenant_id, now=at)
    spend = read(company, f"workloads/{workload.id}/spend")
    assert spend["calls"] == 2
    assert abs(datetime.fromisoformat(spend["since"]) - (today.now - timedelta(days=30))) < timedelta(hours=1)


def test_a_workload_without_an_entry_has_spent_nothing(company, today):
    spend = read(company, f"workloads/{today.workload().id}/spend")
    assert (spend["calls"], spend["coverage"], {Decimal(spend[name]) for name in FIGURES}) == (0, 0.0, {Decimal(0)})


def test_a_rival_finds_neither_spend_nor_items(company, rival, workload, today):
    statement = refresh_statement(company.id, at=today.now - timedelta(hours=1), now=today.now)
    for path, mine in (("workloads/{}/spend", workload.id), ("statements/{}/items", statement.id)):
        assert read(rival, path.format(mine), 404) == read(rival, path.format(rival.id), 404)
        read(company, path.format(mine))


def test_a_statements_items_add_up_to_it(company, today, workload):
    statement = refresh_statement(company.id, at=today.now - timedelta(hours=1), now=today.now)
    items = read(company, f"statements/{statement.id}/items")["results"]
    told = read(company, f"statements/{statement.id}")

    def total(name, **wanted):
        chosen = [one for one in items if all(one[key] == value for key, value in wanted.items())]
        return sum(Decimal(one[name]) for one in chosen)

    assert (total("calls"), total("calls", arm="student")) == (told["calls"], told["student_calls"])
    assert total("counterfactual") == Decimal(told["counterfactual"])
    assert total("saving") == Decimal(told["saving"])
    for kind, figure in (("calls", "teacher"), ("audit", "audit"), ("training", "training"), ("serving", "serving")):
        assert total("actual", kind=kind) == Decimal(told[f"{figure}_cost"])
    assert {one["workload_id"] for one in items if one["kind"] == "audit"} == {str(workload.id)}
    assert None in {one["workload_id"] for one in items}


def test_an_hours_entries_and_adjustments_are_one_item(company, today, workload):
    today.calls(5, workload=workload, arm=Arm.CONTROL)
    roll_up(company.id, now=today.now)
    statement = refresh_statement(company.id, at=today.now - timedelta(hours=1), now=today.now)
    items = read(company, f"statements/{statement.id}/items")["results"]
    (control,) = [one for one in items if one["arm"] == "control"]
    assert (control["calls"], control["input_tokens"], control["output_tokens"]) == (45, 45_000, 450)
    assert Decimal(control["actual"]) == 45 * CALL_COST


def test_items_come_a_page_at_a_time_each_once_and_none_of_another_month(company, now):
    books = Books(company.id, now)
    for number in range(9):
        books.calls(1, workload=books.workload(f"w{number}"), model=f"m{number % 3}", teacher_cost=Decimal(number))
    books.calls(1, model="last month", at=now - timedelta(days=5))
    roll_up(company.id, now=now, since=now - timedelta(days=6))
    statement = refresh_statement(company.id, at=now, now=now)
    seen, path = [], f"statements/{statement.id}/items?limit=2"
    while path:
        page = read(company, path)
        seen += [(one["workload_id"], one["model"]) for one in page["results"]]
        path = (page["next"] or "").partition("/api/v1/")[2]
    assert len(seen) == len(set(seen)) == 9
    with acting_for(company.id):
        assert LedgerEntry.objects.count() == 10
