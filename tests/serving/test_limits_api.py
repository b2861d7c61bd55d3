"""Limits through the API and the portal: who may, what is said, and that a rival's are not there."""

from decimal import Decimal
from uuid import uuid4

import pytest

from serving.models import Limit
from tenants.models import Membership
from tenants.scope import acting_for
from tests.portal.conftest import log_in
from tests.serving.makers import make_rollout
from tests.serving.test_limits import put
from tests.tenants.conftest import Api, sit_down

MONTHLY = {"measure": "spend", "window": "month", "amount": "50"}


@pytest.fixture
def owner(company):
    return sit_down(company.user)


@pytest.fixture
def machine(company):
    return Api(authorization=f"Bearer {company.minted.plain}")


def count(company) -> int:
    with acting_for(company.id):
        return Limit.objects.count()


def test_a_limit_is_set_read_and_removed(owner, company):
    made = owner.send("post", "limits", 201, **MONTHLY)
    assert (made["amount"], made["used"], made["key_id"], made["workload_id"]) == ("50.000000000", None, None, None)
    assert [one["id"] for one in owner.read("limits")["results"]] == [made["id"]]
    owner.send("post", f"limits/{made['id']}/remove", 204)
    assert owner.read("limits")["results"] == []
    owner.send("post", f"limits/{made['id']}/remove", 404)


def test_a_key_reads_limits_and_lifts_none(owner, machine, company):
    made = owner.send("post", "limits", 201, **MONTHLY, key_id=str(company.key.id))
    assert machine.read("limits")["results"][0]["key_id"] == str(company.key.id)
    machine.send("post", "limits", 403, **MONTHLY)
    machine.send("post", f"limits/{made['id']}/remove", 403)
    assert count(company) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "-1"},
        {"amount": "1e30"},
        {"amount": "NaN"},
        {"amount": None},
        {"measure": "euros"},
        {"window": "week"},
        {"measure": "tokens", "amount": "0.5"},
        {"key_id": "mine"},
    ],
)
def test_what_is_no_limit_is_refused(owner, company, changes):
    owner.send("post", "limits", 400, **{**MONTHLY, **changes})
    assert count(company) == 0


def test_a_rival_s_limits_keys_and_workloads_are_not_there(owner, company, rival, now):
    theirs = put(rival, now)
    task = make_rollout(rival.id, now, state="full", share=1.0).workload_id
    assert owner.read("limits")["results"] == []
    owner.send("post", f"limits/{theirs.id}/remove", 404)
    owner.send("post", "limits", 404, **MONTHLY, key_id=str(rival.key.id))
    owner.send("post", "limits", 404, **MONTHLY, workload_id=str(task))
    owner.send("post", "limits", 404, **MONTHLY, key_id=str(uuid4()))
    assert (count(company), count(rival)) == (0, 1)


@pytest.mark.parametrize(("role", "status"), [("owner", 302), ("engineer", 302), ("finance", 302), ("security", 403)])
def test_in_the_portal_those_set_limits_who_answer_for_traffic_or_money(company, role, status):
    with acting_for(company.id):
        Membership.objects.update(role=role)
    person = log_in(company.user.email)
    answer = person.submit("/limits/new", {**MONTHLY, "key": "", "workload": ""}, on="/")
    assert (answer.status_code, count(company)) == (status, int(status == 302))


def test_the_page_says_what_is_limited_what_is_used_and_until_when(company, now):
    person = log_in(company.user.email)
    assert "every call is let through" in person.get("/limits").content.decode()
    person.submit("/limits/new", {**MONTHLY, "key": str(company.key.id), "workload": ""}, on="/limits")
    page = person.get("/limits").content.decode()
    assert "$50.00 a month" in page and "key first" in page and "not looked at yet" in page
    with acting_for(company.id):
        limit = Limit.objects.get()
    person.submit(f"/limits/{limit.id}/remove", on="/limits")
    assert count(company) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount": "0"}, "must be more than 0"),
        ({"amount": "lots"}, "Enter a number"),
        ({"window": "week"}, "valid choice"),
    ],
)
def test_a_form_that_says_no_says_why(company, changes, said):
    person = log_in(company.user.email)
    answer = person.submit("/limits/new", {**MONTHLY, **changes}, on="/limits")
    assert answer.status_code == 400 and said in answer.content.decode()
    assert count(company) == 0


def test_a_rival_s_key_cannot_be_chosen_and_its_limit_not_removed(company, rival, now):
    theirs = put(rival, now, amount=Decimal(9))
    person = log_in(company.user.email)
    answer = person.submit("/limits/new", {**MONTHLY, "key": str(rival.key.id)}, on="/limits")
    assert answer.status_code == 400
    assert person.submit(f"/limits/{theirs.id}/remove", on="/limits").status_code == 404
    assert (count(company), count(rival)) == (0, 1)
