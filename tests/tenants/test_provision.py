"""Holds signing up, keys and credentials, each with the stranger who must never see them."""

import pytest
from django.db import DatabaseError
from django.test import RequestFactory
from rest_framework.exceptions import AuthenticationFailed

from tenants.auth import KeyAuthentication
from tenants.core.sealing import UnableToOpen
from tenants.models import ApiKey, Event, Membership, ProviderCredential, Tenant, User
from tenants.provision import (
    UnableToSignUp,
    create_key,
    data_key_in_force,
    open_credential,
    revoke_key,
    sign_up,
    state_stance,
    store_credential,
)
from tenants.scope import acting_for
from tests.conftest import PASSWORD


def authenticate(plain: str):
    return KeyAuthentication().authenticate(RequestFactory().get("/", headers={"authorization": f"Bearer {plain}"}))


def test_signing_up_makes_a_tenant_with_one_owner_who_can_log_in(company):
    assert company.user.check_password(PASSWORD)
    with acting_for(company.id):
        assert Tenant.objects.get().name == "Northwind Freight"
        assert Membership.objects.get().role == Membership.Role.OWNER
        assert Event.objects.filter(kind="tenant.signed_up").count() == 1


def test_a_second_account_with_the_same_address_is_refused_and_leaves_nothing(company, now):
    with pytest.raises(UnableToSignUp):
        sign_up(company="Copycat", email="OWNER@northwind.example", password=PASSWORD, now=now)
    assert User.objects.count() == 1
    assert Tenant.across_tenants.count() == 1


def test_a_key_tells_which_tenant_calls(company, rival):
    assert authenticate(company.minted.plain)[0].tenant_id == company.id
    assert authenticate(rival.minted.plain)[0].tenant_id == rival.id


def test_a_revoked_key_is_out_of_force_at_once(company, now):
    with acting_for(company.id):
        assert revoke_key(company.key, actor="test", now=now)
        assert not revoke_key(company.key, actor="test", now=now)
        assert Event.objects.filter(kind="key.revoked").count() == 1
    with pytest.raises(AuthenticationFailed):
        authenticate(company.minted.plain)


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: f"{key}A", lambda key: key[:11], lambda _: "us_"])
def test_no_part_of_a_key_lets_anyone_in(company, change):
    with pytest.raises(AuthenticationFailed):
        authenticate(change(company.minted.plain))


def test_a_rival_cannot_revoke_the_companys_key(company, rival, now):
    with acting_for(rival.id):
        assert not revoke_key(company.key, actor="rival", now=now)
    assert authenticate(company.minted.plain)[0].tenant_id == company.id


def test_the_key_is_stored_nowhere(company):
    with acting_for(company.id):
        row = ApiKey.objects.values().get()
        events = list(Event.objects.values())
    assert company.minted.plain not in f"{row}{events}"


def test_a_credential_opens_with_its_tenants_key_alone(company, rival):
    with acting_for(rival.id):
        wrong_key = data_key_in_force()
    with acting_for(company.id):
        kept = ProviderCredential.objects.get(provider="openai")
        assert open_credential(kept, data_key_in_force()) == "sk-openai-North"
        with pytest.raises(UnableToOpen):
            open_credential(kept, wrong_key)


def test_a_credential_copied_onto_another_row_never_opens(company, rival):
    with acting_for(company.id):
        openai = ProviderCredential.objects.get(provider="openai")
        anthropic = ProviderCredential.objects.get(provider="anthropic")
        openai.secret_sealed = anthropic.secret_sealed
        with pytest.raises(UnableToOpen):
            open_credential(openai, data_key_in_force())


def test_storing_a_credential_again_replaces_it(company, now):
    with acting_for(company.id):
        fresh = {"base_url": "https://api.openai.com", "secret": "sk-new-1234", "stance": "allowed"}
        store_credential(provider="openai", actor="test", now=now, **fresh)
        kept = ProviderCredential.objects.get(provider="openai")
        assert (kept.hint, open_credential(kept, data_key_in_force())) == ("1234", "sk-new-1234")
        assert "sk-new-1234" not in str(list(Event.objects.values()))


def test_a_stance_that_is_stated_is_in_force_and_in_the_log(company, now):
    with acting_for(company.id):
        kept = ProviderCredential.objects.get(provider="openai")
        state_stance(kept, stance="forbidden", actor="test", now=now)
        assert ProviderCredential.objects.get(provider="openai").stance == "forbidden"
        assert Event.objects.filter(kind="credential.stance_stated").count() == 1


def test_a_key_and_its_event_stand_or_fall_together(company, now):
    with pytest.raises(DatabaseError), acting_for(company.id):
        create_key(name="second", may_override=False, actor="x" * 200, now=now)
    with acting_for(company.id):
        assert ApiKey.objects.count() == 1
