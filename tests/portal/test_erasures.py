"""Holds that whoever may have a person forgotten can do so in the portal and the API, and that nobody else can."""

import pytest
from django.test import Client

import ingestion.erase
from ingestion.erase import carry_out_erasures
from ingestion.models import Erasure
from tenants.models import Membership
from tenants.scope import acting_for
from tenants.standing import suspend

ANNA = "anna@customer.example"
PAGE = "/settings/erasures"


def become(company, role):
    with acting_for(company.id):
        Membership.objects.update(role=role)


def erasures(company) -> list[Erasure]:
    with acting_for(company.id):
        return list(Erasure.objects.all())


def test_a_person_is_forgotten_by_a_form_and_the_page_says_how_far_it_is_and_never_whom(owner, company, now):
    assert "Nobody has been erased." in owner.get(PAGE).content.decode()
    answer = owner.submit(f"{PAGE}/new", {"subject": ANNA}, on=PAGE)
    assert (answer.status_code, answer.headers["Location"]) == (302, PAGE)
    page = owner.get(PAGE).content.decode()
    assert "at work" in page and ANNA not in page
    carry_out_erasures(company.id, clock=lambda: now)
    page = owner.get(PAGE).content.decode()
    assert "at work" not in page and f"user:{company.user.pk}" in page
    assert "subject.erased" in owner.get("/settings/events").content.decode()


@pytest.mark.parametrize("subject", ["", "x" * 10_001, "a\x00b"])
def test_a_person_who_cannot_be_is_refused_with_a_word(owner, company, subject):
    answer = owner.submit(f"{PAGE}/new", {"subject": subject}, on=PAGE)
    assert answer.status_code == 400 and 'class="error"' in answer.content.decode()
    assert erasures(company) == []


def test_too_many_at_once_are_told_to_wait(owner, client, company, monkeypatch):
    monkeypatch.setattr(ingestion.erase, "MOST_OPEN", 0)
    answer = owner.submit(f"{PAGE}/new", {"subject": ANNA}, on=PAGE)
    assert answer.status_code == 400 and "ask again in some minutes" in answer.content.decode()
    client.force_login(company.user)
    answer = client.post("/api/v1/erasures", {"subject": ANNA}, content_type="application/json")
    assert answer.status_code == 400 and "ask again in some minutes" in answer.content.decode()
    assert erasures(company) == []


def test_a_space_more_is_somebody_else(owner, company):
    for subject in (ANNA, f"{ANNA} "):
        owner.submit(f"{PAGE}/new", {"subject": subject}, on=PAGE)
    assert len({erasure.subject_hmac for erasure in erasures(company)}) == 2


@pytest.mark.parametrize(
    ("role", "may"), [("owner", True), ("security", True), ("engineer", False), ("finance", False)]
)
def test_owners_and_security_erase_and_nobody_else(owner, company, role, may):
    become(company, role)
    assert ("Yes, erase" in owner.get(PAGE).content.decode()) is may
    assert owner.submit(f"{PAGE}/new", {"subject": ANNA}, on="/settings/password").status_code == (302 if may else 403)
    assert len(erasures(company)) == may


def test_a_suspended_company_s_people_are_still_forgotten(owner, company, now):
    suspend(company.id, actor="operator:1", now=now)
    assert owner.submit(f"{PAGE}/new", {"subject": ANNA}, on=PAGE).status_code == 302
    assert len(carry_out_erasures(company.id, clock=lambda: now)) == 1


def test_a_key_reads_what_was_erased_and_erases_nobody(client, company, world):
    """A leaked key must not be able to destroy a log."""
    headers = {"authorization": f"Bearer {company.minted.plain}"}
    (shown,) = client.get("/api/v1/erasures", headers=headers).json()["results"]
    assert set(shown) >= {"requested_at", "finished_at", "calls", "datasets"} and "subject_hmac" not in shown
    refused = client.post("/api/v1/erasures", {"subject": ANNA}, content_type="application/json", headers=headers)
    assert (refused.status_code, len(erasures(company))) == (403, 1)


def test_a_session_erases_through_the_api(client, company):
    client.force_login(company.user)
    tokenless = Client(enforce_csrf_checks=True)
    tokenless.force_login(company.user)
    assert tokenless.post("/api/v1/erasures", {"subject": ANNA}, content_type="application/json").status_code == 403
    asked = client.post("/api/v1/erasures", {"subject": ANNA}, content_type="application/json")
    assert (asked.status_code, asked.json()["finished_at"]) == (202, None)
    empty = client.post("/api/v1/erasures", {"subject": ""}, content_type="application/json")
    assert (empty.status_code, len(erasures(company))) == (400, 1)
