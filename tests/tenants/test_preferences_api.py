"""Holds that an owner states preferences through the API, one without the others, and that nobody else does."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from tenants.models import Event, Tenant
from tenants.scope import acting_for
from tenants.standing import suspend


def stated(company):
    with acting_for(company.id):
        tenant = Tenant.objects.get()
    return tenant.name, tenant.approval, tenant.log_content


def test_what_is_not_sent_stays_as_it_is(owner, company):
    assert owner.send("patch", "tenant", 200, log_content=False)["log_content"] is False
    assert stated(company) == ("Northwind Freight", "ask_first", False)
    owner.send("patch", "tenant", 200, approval="automatic")
    owner.send("patch", "tenant", 200, name=" Northwind AG ")
    assert stated(company) == ("Northwind AG", "automatic", False)
    with acting_for(company.id):
        events = list(Event.objects.filter(kind="tenant.preferences_stated").order_by("at"))
    assert [event.actor for event in events] == [f"user:{company.user.pk}"] * 3
    assert events[-1].data == {"approval": "automatic", "log_content": False, "ask_usage": False}
    assert owner.send("patch", "tenant", 200, ask_usage=True)["ask_usage"] is True
    assert stated(company) == ("Northwind AG", "automatic", False)


@pytest.mark.parametrize(
    ("sent", "about"),
    [
        ({}, "non_field_errors"),
        ({"log_contents": False}, "non_field_errors"),
        ({"status": "active", "savings_share": 0}, "non_field_errors"),
        ({"name": " "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": None}, "name"),
        ({"approval": "tenant"}, "approval"),
        ({"log_content": None}, "log_content"),
        ({"log_content": "perhaps", "name": "x"}, "log_content"),
    ],
)
def test_what_cannot_be_preferred_is_refused_with_a_word(owner, company, sent, about):
    before = stated(company)
    assert list(owner.send("patch", "tenant", 400, **sent)) == [about]
    assert stated(company) == before


@pytest.mark.parametrize("role", ["engineer", "finance", "security"])
def test_nobody_but_an_owner_states_them(owner, company, become, role):
    become(role)
    owner.send("patch", "tenant", 403, log_content=False)
    assert owner.read("tenant")["log_content"] is True and stated(company)[2]


def test_a_key_reads_them_and_ends_no_logging(machine, company):
    assert machine.send("patch", "tenant", 403, log_content=False) == {"detail": "this takes another role"}
    assert machine.read("tenant")["log_content"] is True and stated(company)[2]


def test_a_suspended_companys_owner_only_looks(owner, company, now):
    suspend(company.id, actor="operator:1", now=now)
    assert owner.send("patch", "tenant", 403, name="x") == {"detail": "the tenant is suspended"}
    assert owner.read("tenant")["name"] == "Northwind Freight"


def test_a_rival_states_its_own_alone(stranger, company, rival):
    stranger.send("patch", "tenant", 200, name="Northwind Freight, the real one", log_content=False)
    assert stated(company) == ("Northwind Freight", "ask_first", True)
    assert stated(rival)[2] is False


def test_of_two_changes_at_once_neither_undoes_the_other(owner, company):
    def rename():
        try:
            return owner.send("patch", "tenant", 200, name="Northwind AG")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with acting_for(company.id):
            Tenant.objects.update(log_content=False)
            renamed = pool.submit(rename)
            wait_until_somebody_waits()
        renamed.result(timeout=30)
    assert stated(company) == ("Northwind AG", "ask_first", False)


def wait_until_somebody_waits():
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")
