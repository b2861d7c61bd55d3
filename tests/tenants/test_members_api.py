"""Holds that an owner brings people in and takes them out through the API, that the rules hold, and nobody else can."""

import pytest
from django.test import Client

from tenants.members import add_member
from tenants.models import Event, Membership, User
from tenants.scope import acting_for
from tenants.standing import suspend
from tests.conftest import PASSWORD
from tests.tenants.conftest import sit_down

EVA = {"email": "eva@northwind.example", "role": "engineer", "password": "another long enough one"}


@pytest.fixture
def eva(company, now):
    with acting_for(company.id):
        return add_member(**EVA, actor="test", now=now)


def members(company):
    with acting_for(company.id):
        return list(Membership.objects.order_by("id").values_list("user__email", "role"))


def test_every_member_and_a_key_see_who_belongs_to_the_company(owner, machine, eva, company, rival):
    found = [
        {
            "id": company_member(company),
            "user_id": company.user.pk,
            "email": "owner@northwind.example",
            "role": "owner",
        },
        {"id": eva.id, "user_id": eva.user_id, "email": EVA["email"], "role": "engineer"},
    ]
    for reader in (owner, machine, sit_down(eva.user)):
        assert reader.read("members")["results"] == found
    assert machine.read("members?limit=1")["next"]


def test_an_owner_adds_a_person_who_can_log_in(owner, company):
    made = owner.send("post", "members", 201, **EVA)
    user = User.objects.get(email=EVA["email"])
    assert made == {"id": made["id"], "user_id": user.pk, "email": EVA["email"], "role": "engineer"}
    assert user.check_password(EVA["password"])
    with acting_for(company.id):
        event = Event.objects.get(kind="member.added")
    assert (event.actor, event.subject_id) == (f"user:{company.user.pk}", f"{user.pk}")
    assert EVA["password"] not in f"{event.data}"


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("email", "eva"),
        ("email", None),
        ("email", f"{'e' * 260}@northwind.example"),
        ("email", "owner@northwind.example"),
        ("email", "OWNER@southgate.example"),
        ("role", "emperor"),
        ("password", "short"),
        ("password", "1234567890"),
        ("password", EVA["email"]),
        ("password", "x" * 257),
        ("password", "a long one with a \x00 in it"),
    ],
)
def test_a_person_who_cannot_be_added_is_refused_with_the_field(owner, company, rival, field, sent):
    refused = owner.send("post", "members", 400, **{**EVA, field: sent})
    assert list(refused) == [field] and refused[field]
    assert members(company) == [("owner@northwind.example", "owner")]


def test_a_role_is_changed_to_one_that_there_is(owner, eva, company):
    assert owner.send("put", f"members/{eva.id}/role", 200, role="finance")["role"] == "finance"
    assert "role" in owner.send("put", f"members/{eva.id}/role", 400, role="emperor")
    assert "role" in owner.send("put", f"members/{eva.id}/role", 400)
    assert members(company)[1] == (EVA["email"], "finance")
    with acting_for(company.id):
        assert Event.objects.get(kind="member.role_changed").actor == f"user:{company.user.pk}"


def test_the_last_owner_stays(owner, eva, company):
    mine = company_member(company)
    for method, path, data in (("put", "role", {"role": "finance"}), ("post", "remove", {})):
        refused = owner.send(method, f"members/{mine}/{path}", 409, **data)
        assert refused == {"detail": "a tenant keeps at least one owner"}
    owner.send("put", f"members/{eva.id}/role", 200, role="owner")
    owner.send("post", f"members/{mine}/remove", 204)
    assert members(company) == [(EVA["email"], "owner")]


def test_a_removed_member_is_out_at_once(owner, eva, company):
    person = sit_down(eva.user)
    person.read("members")
    assert owner.send("post", f"members/{eva.id}/remove", 204) is None
    assert person.get("/api/v1/members").status_code in (401, 403)
    owner.send("post", f"members/{eva.id}/remove", 404)
    with acting_for(company.id):
        assert Event.objects.get(kind="member.removed").subject_id == f"{eva.user_id}"


def try_everything(caller, member, status):
    caller.send("post", "members", status, email="new@northwind.example", role="owner", password=PASSWORD)
    caller.send("put", f"members/{member}/role", status, role="owner")
    caller.send("post", f"members/{member}/remove", status)


@pytest.mark.parametrize("role", ["engineer", "finance", "security"])
def test_nobody_but_an_owner_changes_who_belongs(owner, eva, company, become, role):
    become(role)
    try_everything(owner, eva.id, 403)
    assert [found for _, found in members(company)] == [role, role]


def test_a_key_adds_nobody_or_a_leaked_one_would_own_the_company(machine, eva, company):
    before = members(company)
    try_everything(machine, eva.id, 403)
    assert members(company) == before


def test_a_suspended_companys_owner_only_looks(owner, eva, company, now):
    suspend(company.id, actor="operator:1", now=now)
    try_everything(owner, eva.id, 403)
    assert len(owner.read("members")["results"]) == 2


def test_a_rival_finds_no_member_of_the_companys(stranger, eva, company):
    before = members(company)
    missing = stranger.send("put", "members/999999/role", 404, role="finance")
    assert stranger.send("put", f"members/{eva.id}/role", 404, role="finance") == missing
    stranger.send("post", f"members/{eva.id}/remove", 404)
    assert [one["email"] for one in stranger.read("members")["results"]] == ["owner@southgate.example"]
    assert members(company) == before


def test_a_session_without_the_token_adds_nobody(company):
    tokenless = Client(enforce_csrf_checks=True)
    tokenless.force_login(company.user)
    assert tokenless.post("/api/v1/members", EVA, content_type="application/json").status_code == 403
    assert len(members(company)) == 1


def company_member(company):
    with acting_for(company.id):
        return Membership.objects.get(user=company.user).id
