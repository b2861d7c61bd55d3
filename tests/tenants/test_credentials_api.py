"""Holds that provider keys go in through the API and never come out, only to where it is safe, by whom it may be."""

import json

import pytest

from ingestion.core.calls import Dialect, Provider
from portal.forms import CredentialForm
from tenants.credentials import UnableToSendThere, check_base_url
from tenants.credentials_api import PROVIDERS
from tenants.models import Event, ProviderCredential
from tenants.provision import data_key_in_force, open_credential
from tenants.scope import acting_for
from tenants.standing import suspend

SECRET = "sk-0123456789"
GOOD = {"provider": "openai", "base_url": "https://93.184.215.14/v1/", "secret": SECRET, "stance": "allowed"}


def credentials(company):
    with acting_for(company.id):
        return list(ProviderCredential.objects.order_by("provider").values())


def of(company, provider="openai"):
    return next(row["id"] for row in credentials(company) if row["provider"] == provider)


def test_keys_at_providers_are_listed_by_their_last_four_characters(owner, machine, company):
    for reader in (owner, machine):
        anthropic, openai = reader.read("credentials")["results"]
        assert set(openai) == {"id", "name", "provider", "base_url", "hint", "stance", "stance_at"}
        assert (openai["id"], openai["hint"], openai["stance"]) == (str(of(company)), "orth", "internal_only")
        assert "sk-" not in json.dumps([anthropic, openai])


def test_a_key_is_sealed_in_place_of_the_older_one_and_never_shown(owner, company):
    before = of(company)
    made = owner.send("post", "credentials", 201, **GOOD)
    assert (made["id"], made["hint"], made["base_url"]) == (str(before), "6789", "https://93.184.215.14")
    with acting_for(company.id):
        kept = ProviderCredential.objects.get(provider="openai")
        assert (open_credential(kept, data_key_in_force()), kept.stance) == (SECRET, "allowed")
        events = list(Event.objects.order_by("at").values())
        assert ProviderCredential.objects.count() == 2
    assert [one["actor"] for one in events if one["kind"] == "credential.stored"][-1] == f"user:{company.user.pk}"
    assert SECRET not in f"{made}{events}"


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("provider", "responses"),
        ("provider", None),
        ("stance", "whatever"),
        ("secret", "short"),
        ("secret", "x" * 501),
        ("secret", "sk-01234\r\nx-more: 56789"),
        ("secret", "sk-01234 56789"),
        ("secret", "sk-öäü-0123456789"),
        ("base_url", ""),
        ("base_url", f"https://{'x' * 300}.example"),
        ("base_url", "http://api.openai.com"),
        ("base_url", "not a URL"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_the_field_and_without_the_key(owner, company, field, sent):
    before = credentials(company)
    refused = owner.send("post", "credentials", 400, **{**GOOD, field: sent})
    assert list(refused) == [field] and SECRET not in json.dumps(refused)
    assert credentials(company) == before


@pytest.mark.parametrize("production", [True, False])
@pytest.mark.parametrize(
    "typed",
    [
        "https://93.184.215.14",
        "https://93.184.215.14/v1/",
        " https://93.184.215.14/openai/v1 ",
        "http://93.184.215.14",
        "http://127.0.0.1:9000",
        "http://localhost:9000/",
        "http://127.0.0.1:8787",  # our own gateway
        "https://127.0.0.1:8790",
        "https://10.0.0.7",
        "https://169.254.169.254",
        "https://[::1]",
        "https://[::1",
        "https://",
        "https://user:pass@93.184.215.14",
        "https://@93.184.215.14",
        "https://93.184.215.14?",
        "https://93.184.215.14/#",
        "https://api..openai.com",
        "https://93.184.215.14:port",
        "ftp://127.0.0.1",
        "javascript:alert(1)",
    ],
)
def test_a_key_goes_where_the_portals_form_lets_it_go_and_nowhere_else(settings, typed, production):
    settings.PRODUCTION, settings.PROVIDER_ALLOW_PRIVATE, settings.DEMO = production, not production, False
    settings.GATEWAY_URL = "http://127.0.0.1:8787"
    form = CredentialForm({**GOOD, "base_url": typed})
    try:
        checked, said = check_base_url(typed), []
    except UnableToSendThere as error:
        checked, said = None, [str(error)]
    assert (form.errors.get("base_url", []), form.cleaned_data.get("base_url")) == (said, checked)


def test_a_key_goes_to_the_internet_and_to_nothing_inside(settings):
    """Or the test above would pass on two rules that refuse everything, or nothing."""
    settings.PRODUCTION, settings.PROVIDER_ALLOW_PRIVATE = True, False
    assert check_base_url("https://93.184.215.14/v1") == "https://93.184.215.14"
    for inside in ("https://10.0.0.7", "https://127.1", "http://127.0.0.1:9000", "https://[::ffff:10.0.0.7]"):
        with pytest.raises(UnableToSendThere):
            check_base_url(inside)


def test_the_providers_are_those_that_some_dialect_is_answered_by():
    assert set(PROVIDERS) == set(Provider) >= {dialect.provider for dialect in Dialect}


def test_a_stance_that_is_stated_is_in_force_and_in_the_log(owner, company):
    path = f"credentials/{of(company)}/stance"
    assert owner.send("put", path, 200, stance="forbidden")["stance"] == "forbidden"
    assert "stance" in owner.send("put", path, 400, stance="whatever")
    assert "stance" in owner.send("put", path, 400)
    assert {row["provider"]: row["stance"] for row in credentials(company)}["openai"] == "forbidden"
    with acting_for(company.id):
        assert Event.objects.get(kind="credential.stance_stated").actor == f"user:{company.user.pk}"


@pytest.mark.parametrize(
    ("role", "may"), [("owner", True), ("security", True), ("engineer", False), ("finance", False)]
)
def test_owners_and_security_keep_keys_and_state_stances_and_nobody_else(owner, company, become, role, may):
    become(role)
    before = credentials(company)
    owner.send("post", "credentials", 201 if may else 403, **GOOD)
    owner.send("put", f"credentials/{of(company)}/stance", 200 if may else 403, stance="forbidden")
    assert (credentials(company) != before) is may


def test_a_key_of_ours_sends_no_calls_elsewhere_and_states_nothing(machine, company):
    before = credentials(company)
    machine.send("post", "credentials", 403, **GOOD)
    machine.send("put", f"credentials/{of(company)}/stance", 403, stance="allowed")
    assert credentials(company) == before


def test_a_suspended_companys_owner_only_looks(owner, company, now):
    suspend(company.id, actor="operator:1", now=now)
    owner.send("post", "credentials", 403, **GOOD)
    assert len(owner.read("credentials")["results"]) == 2


def test_a_rival_finds_no_credential_of_the_companys(stranger, company, rival):
    before = credentials(company)
    missing = stranger.send("put", f"credentials/{company.id}/stance", 404, stance="allowed")
    assert stranger.send("put", f"credentials/{of(company)}/stance", 404, stance="allowed") == missing
    stranger.send("post", "credentials", 201, **GOOD)
    assert credentials(company) == before
    assert {one["id"] for one in stranger.read("credentials")["results"]} == {
        str(row["id"]) for row in credentials(rival)
    }
