"""The ledger says what the calls say, to the last digit, and only ever grows."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connections
from django.db.models import Sum
from django.db.utils import DatabaseError

from billing.ledger import roll_up
from billing.models import LedgerEntry
from ingestion.core.calls import Arm
from ingestion.models import Call, Price
from serving.models import Audit
from tenants.scope import acting_for
from tests.billing.conftest import CALL_COST
from training.models import TrainingRun


def entries(tenant_id, **wanted):
    with acting_for(tenant_id):
        return list(LedgerEntry.objects.filter(**wanted).order_by("id"))


def total(tenant_id, column, **wanted):
    with acting_for(tenant_id):
        return LedgerEntry.objects.filter(**wanted).aggregate(s=Sum(column))["s"] or Decimal(0)


def test_calls_that_the_teacher_answered_cost_what_they_would_have(books, now):
    workload = books.workload()
    books.calls(7, workload=workload)
    books.calls(3, workload=workload, arm=Arm.FALLBACK)
    roll_up(books.tenant_id, now=now)
    assert {(entry.arm, entry.calls, entry.actual, entry.counterfactual) for entry in entries(books.tenant_id)} == {
        ("teacher", 7, 7 * CALL_COST, 7 * CALL_COST),
        ("fallback", 3, 3 * CALL_COST, 3 * CALL_COST),
    }


def test_a_student_answered_call_would_have_cost_what_the_control_arm_did(books, now):
    workload = books.workload()
    books.calls(30, workload=workload, arm=Arm.CONTROL)
    books.calls(50, workload=workload, arm=Arm.FALLBACK, read=50_000)  # the hard ones: no measure of the easy ones
    books.calls(100, workload=workload, arm=Arm.STUDENT)
    roll_up(books.tenant_id, now=now)
    (entry,) = entries(books.tenant_id, kind="calls", arm="student")
    assert (entry.calls, entry.actual, entry.counterfactual) == (100, 0, 100 * CALL_COST)


def test_with_few_control_calls_all_that_the_teacher_answered_is_taken(books, now):
    workload = books.workload()
    books.calls(10, workload=workload, arm=Arm.CONTROL)
    books.calls(10, workload=workload, arm=Arm.TEACHER, read=3000)
    books.calls(4, workload=workload, arm=Arm.STUDENT)
    roll_up(books.tenant_id, now=now)
    (entry,) = entries(books.tenant_id, kind="calls", arm="student")
    assert entry.counterfactual == 4 * Decimal("0.0051")
    assert entry.counterfactual_variance == pytest.approx(4 * 0.0025**2 * 20 / 19)
    assert entry.counterfactual_shared_error == pytest.approx(4 * 0.0025 * (20 / 19) ** 0.5 / 20**0.5)


def test_another_workload_says_nothing_about_this_one(books, now):
    books.calls(40, workload=books.workload("other"), arm=Arm.CONTROL)
    books.calls(4, workload=books.workload(), arm=Arm.STUDENT)
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "counterfactual", arm="student") == 0


def test_a_failed_call_cost_nothing_and_would_have_cost_nothing(books, now):
    workload = books.workload()
    books.calls(40, workload=workload, arm=Arm.CONTROL)
    books.calls(5, workload=workload, status=503, teacher_cost=None)
    books.calls(5, workload=workload, arm=Arm.STUDENT, status=500)
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "calls", kind="calls") == 50
    assert total(books.tenant_id, "counterfactual") == total(books.tenant_id, "actual", kind="calls") == 40 * CALL_COST


def test_a_call_without_a_known_price_claims_no_saving(books, now):
    workload = books.workload()
    books.calls(40, workload=workload, arm=Arm.CONTROL)
    books.calls(5, workload=workload, arm=Arm.STUDENT, model="in-house")
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "counterfactual", arm="student") == 0


def test_an_hour_in_which_a_price_changes_has_both_prices(books, now):
    changes = now.replace(minute=0) - timedelta(minutes=30)
    for since, until, rate in ((changes - timedelta(days=9), changes, 1), (changes, None, 2)):
        Price.objects.create(
            provider="openai",
            model="probe-2",
            input_per_million=rate,
            output_per_million=0,
            cached_input_per_million=rate,
            cache_write_per_million=rate,
            valid_from=since,
            valid_until=until,
            source="test",
        )
    try:
        workload = books.workload()
        books.calls(40, workload=workload, arm=Arm.CONTROL, model="probe-2", at=changes - timedelta(hours=5))
        books.calls(6, workload=workload, arm=Arm.STUDENT, model="probe-2", at=changes - timedelta(seconds=4))
        roll_up(books.tenant_id, now=now)
    finally:
        Price.objects.filter(model="probe-2").delete()
    assert total(books.tenant_id, "counterfactual", arm="student") == 4 * Decimal("0.001") + 2 * Decimal("0.002")


def test_audits_training_and_the_replicas_time_are_overheads(books, now, settings):
    settings.REPLICA_HOURLY_COST = Decimal("0.36")
    workload = books.workload()
    run = books.run(workload, cost=Decimal("0.5"))
    books.audit(workload, run, cost=Decimal("0.003"))
    books.audit(workload, run, cost=Decimal("0"), kind=Audit.Kind.SHADOW, student_ms=1000)
    books.calls(100, workload=workload, arm=Arm.STUDENT, adapter="student-v1")
    books.calls(10, workload=workload, arm=Arm.FALLBACK, student_ms=100)
    roll_up(books.tenant_id, now=now)
    spent = {kind: total(books.tenant_id, "actual", kind=kind) for kind in ("audit", "training", "serving")}
    assert spent == {"audit": Decimal("0.003"), "training": Decimal("0.5"), "serving": 4 * Decimal("0.0001")}
    assert total(books.tenant_id, "counterfactual", kind__in=["audit", "training", "serving"]) == 0


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_run_that_came_to_nothing_is_an_overhead_as_well(books, now, ending):
    run = books.run(books.workload(), cost=Decimal("0.25"))
    with acting_for(books.tenant_id):
        TrainingRun.objects.filter(id=run.id).update(status=ending)
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "actual", kind="training") == Decimal("0.25")


def test_a_second_look_adds_nothing(books, now):
    workload = books.workload()
    books.calls(40, workload=workload, arm=Arm.CONTROL)
    books.calls(9, workload=workload, arm=Arm.STUDENT)
    assert roll_up(books.tenant_id, now=now) > 0
    assert roll_up(books.tenant_id, now=now + timedelta(minutes=5)) == 0


def test_a_late_call_is_a_further_entry_and_no_entry_is_changed(books, now):
    workload = books.workload()
    books.calls(5, workload=workload)
    roll_up(books.tenant_id, now=now)
    (first,) = entries(books.tenant_id)
    books.calls(2, workload=workload)
    roll_up(books.tenant_id, now=now + timedelta(hours=3))
    before, after = entries(books.tenant_id)
    assert (before.id, before.calls, before.made_at) == (first.id, 5, now)
    assert (after.sequence, after.calls, after.actual) == (1, 2, 2 * CALL_COST)


def test_calls_that_discovery_gives_a_workload_move_to_it(books, now):
    books.calls(5)
    roll_up(books.tenant_id, now=now)
    workload = books.workload()
    with acting_for(books.tenant_id):
        Call.objects.update(workload_id=workload.id)
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "calls", workload_id=None) == 0
    assert total(books.tenant_id, "actual", workload_id=workload.id) == 5 * CALL_COST


def test_many_looks_at_once_write_each_hour_once(books, now):
    workload = books.workload()
    for hours in range(1, 5):
        books.calls(20, workload=workload, arm=Arm.CONTROL, at=now - timedelta(hours=hours))
        books.calls(20, workload=workload, arm=Arm.STUDENT, at=now - timedelta(hours=hours))

    def look(_):
        try:
            return roll_up(books.tenant_id, now=now)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(look, range(6)))
    roll_up(books.tenant_id, now=now)
    assert total(books.tenant_id, "calls", kind="calls") == 160
    assert total(books.tenant_id, "actual", kind="calls") == 80 * CALL_COST
    assert total(books.tenant_id, "counterfactual") == 160 * CALL_COST


def test_an_entry_can_be_neither_changed_nor_removed(books, now):
    books.calls(1)
    roll_up(books.tenant_id, now=now)
    for change in (lambda rows: rows.update(actual=0), lambda rows: rows.delete()):
        with pytest.raises(DatabaseError, match="permission denied"), acting_for(books.tenant_id):
            change(LedgerEntry.objects.all())


def test_a_rival_never_sees_or_pays_for_a_call(books, rival_books, now):
    books.calls(40, workload=books.workload(), arm=Arm.CONTROL)
    rival_books.calls(3, workload=rival_books.workload(), arm=Arm.STUDENT)
    roll_up(books.tenant_id, now=now)
    roll_up(rival_books.tenant_id, now=now)
    assert total(rival_books.tenant_id, "calls", kind="calls") == 3
    assert total(rival_books.tenant_id, "counterfactual") == 0
    assert total(books.tenant_id, "calls", kind="calls") == 40
