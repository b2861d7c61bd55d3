"""Model routes and several credentials: through the API, the portal and the snapshot, and a rival has none of them."""

import re

import pytest

from serving.models import ModelRoute
from serving.publish import make_snapshot
from tenants.models import Event, ProviderCredential
from tenants.scope import acting_for
from tests.portal.conftest import log_in
from tests.tenants.conftest import Api, sit_down

SECOND = {
    "name": "openai-eu",
    "provider": "openai",
    "base_url": "https://93.184.215.14/v1",
    "secret": "sk-eu-0123456789",
    "stance": "allowed",
}
AZURE = {**SECOND, "name": "", "provider": "azure", "base_url": "https://93.184.215.14/openai/v1"}


@pytest.fixture
def owner(company):
    return sit_down(company.user)


@pytest.fixture
def machine(company):
    return Api(authorization=f"Bearer {company.minted.plain}")


def credential(company, name="openai") -> str:
    with acting_for(company.id):
        return str(ProviderCredential.objects.get(name=name).id)


def count(company) -> int:
    with acting_for(company.id):
        return ModelRoute.objects.count()


def route(*destinations, asked_model="smart"):
    told = [{"credential_id": where, "model": model} for where, model in destinations]
    return {"asked_model": asked_model, "destinations": told}


def test_a_second_key_at_a_provider_is_kept_beside_the_first_and_published_with_its_routes(owner, company, now):
    second, azure = owner.send("post", "credentials", 201, **SECOND), owner.send("post", "credentials", 201, **AZURE)
    assert (second["name"], azure["name"], azure["base_url"]) == ("openai-eu", "azure", "https://93.184.215.14")
    owner.send("post", "model-routes", 201, **route((second["id"], "gpt-4o"), (azure["id"], "prod")))
    owner.send("post", "model-routes", 201, **route((second["id"], ""), (credential(company), ""), asked_model="*"))
    tenant = make_snapshot(now).tenants[str(company.id)]
    assert [one.credential for one in tenant.providers["openai"]] == ["sk-eu-0123456789", "sk-openai-North"]
    smart = [(one.id, one.provider, one.model) for one in tenant.models["openai/smart"]]
    assert smart == [(second["id"], "openai", "gpt-4o"), (azure["id"], "azure", "prod")]
    assert [one.model for one in tenant.models["azure/smart"]] == ["prod"]
    assert [one.id for one in tenant.providers["azure"]] == [azure["id"]]


def test_without_a_route_calls_go_under_the_credential_of_the_providers_name(owner, company, rival, now):
    owner.send("post", "credentials", 201, **{**SECOND, "name": "a-first"})
    tenants = make_snapshot(now).tenants
    assert [one.credential for one in tenants[str(company.id)].providers["openai"]] == ["sk-openai-North"]
    assert tenants[str(company.id)].models == tenants[str(rival.id)].models == {}


def test_the_only_key_at_a_provider_is_its_usual_one_whatever_it_is_called(owner, company, now):
    owner.send("post", "credentials", 201, **SECOND)
    two = make_snapshot(now).tenants[str(company.id)].providers["openai"][0]
    owner.send("post", f"credentials/{credential(company)}/remove", 204)
    one = make_snapshot(now).tenants[str(company.id)].providers["openai"][0]
    assert (two.credential, two.usual) == ("sk-openai-North", True)
    assert (one.credential, one.usual) == ("sk-eu-0123456789", True)


def test_a_route_is_set_replaced_and_removed_and_the_log_says_so(owner, company):
    mine = credential(company)
    owner.send("post", "model-routes", 201, **route((mine, "a"), (mine, "b")))
    owner.send("post", "model-routes", 201, **route((mine, "c")))
    assert owner.read("model-routes") == [{"dialect": "openai", **route((mine, "c"))}]
    owner.send("post", "model-routes/remove", 204, dialect="openai", asked_model="smart")
    owner.send("post", "model-routes/remove", 404, dialect="openai", asked_model="smart")
    assert owner.read("model-routes") == []
    with acting_for(company.id):
        kinds = Event.objects.filter(kind__startswith="model_route").order_by("at", "id").values_list("kind", flat=True)
        assert sorted(kinds) == ["model_route.removed", "model_route.set", "model_route.set"]


def test_two_dialects_have_each_its_own_route_for_a_name(owner, company, now):
    for name in ("openai", "anthropic"):
        owner.send("post", "model-routes", 201, **route((credential(company, name), ""), asked_model="*"))
    assert [one["dialect"] for one in owner.read("model-routes")] == ["anthropic", "openai"]
    providers = make_snapshot(now).tenants[str(company.id)].providers
    assert {name: there[0].provider for name, there in providers.items()} == {
        "openai": "openai",
        "anthropic": "anthropic",
    }
    owner.send("post", "model-routes/remove", 204, dialect="anthropic", asked_model="*")
    assert [one["dialect"] for one in owner.read("model-routes")] == ["openai"]


def test_a_key_sets_no_route_and_forgets_no_credential(owner, machine, company):
    mine = credential(company)
    machine.send("post", "model-routes", 403, **route((mine, "a")))
    machine.send("post", f"credentials/{mine}/remove", 403)
    owner.send("post", "model-routes", 201, **route((mine, "a")))
    machine.send("post", "model-routes/remove", 403, dialect="openai", asked_model="smart")
    assert count(company) == 1


def test_a_rivals_credential_is_no_destination_and_its_routes_are_not_there(owner, company, rival):
    said = owner.send("post", "model-routes", 400, **route((credential(rival), "a")))
    assert said == {"destinations": ["There is no such credential."]}
    stranger = sit_down(rival.user)
    owner.send("post", "model-routes", 201, **route((credential(company), "a")))
    assert stranger.read("model-routes") == []
    stranger.send("post", "model-routes/remove", 404, dialect="openai", asked_model="smart")
    stranger.send("post", f"credentials/{credential(company)}/remove", 404)
    assert (count(company), count(rival)) == (1, 0)


def test_a_route_that_cannot_be_is_refused_and_says_why(owner, company):
    mine, other = credential(company), credential(company, "anthropic")
    for asked, words in [
        (route((mine, "a"), (other, "b")), "same requests"),
        (route((mine, "a"), (mine, "a")), "two of these are the same"),
        (route(*[(mine, str(number)) for number in range(6)]), "no more than 5"),
        (route(), "from 1 to 5"),
        (route((mine, "a\x00")), "Null characters"),
        (route((mine, "a"), asked_model=" "), "may not be blank"),
        (route((mine, "a"), asked_model="*"), "each keeps its name"),
    ]:
        assert words in str(owner.send("post", "model-routes", 400, **asked))
    assert count(company) == 0


def test_a_credential_is_forgotten_unless_a_route_leads_to_it(owner, company, now):
    second = owner.send("post", "credentials", 201, **SECOND)
    owner.send("post", "model-routes", 201, **route((second["id"], "a")))
    assert "change the route first" in str(owner.send("post", f"credentials/{second['id']}/remove", 400))
    owner.send("post", "model-routes/remove", 204, dialect="openai", asked_model="smart")
    owner.send("post", f"credentials/{second['id']}/remove", 204)
    owner.send("post", f"credentials/{second['id']}/remove", 404)
    assert {one["name"] for one in owner.read("credentials")["results"]} == {"openai", "anthropic"}


def test_a_name_is_one_key_at_one_provider(owner):
    owner.send("post", "credentials", 201, **SECOND)
    said = owner.send("post", "credentials", 400, **{**SECOND, "provider": "anthropic"})
    assert "another provider" in str(said)
    assert "the usual key at anthropic" in str(
        owner.send("post", "credentials", 400, **{**SECOND, "name": "anthropic"})
    )
    owner.send("post", "credentials", 400, **{**SECOND, "name": "no slug"})


def test_the_portal_sets_and_removes_routes_and_forgets_keys(company):
    browser = log_in(company.user)
    mine, other = credential(company), credential(company, "anthropic")
    data = {"asked_model": "smart", "first": mine, "first_model": "gpt-4o"}
    assert browser.submit("/settings/model-routes", data, on="/settings").status_code == 302
    page = browser.get("/settings").content.decode()
    assert "<code>smart</code>" in page and "as <code>gpt-4o</code>" in page
    change = re.search(r'href="(\?route=[-0-9a-f]+)#routes"', page)[1]
    filled = browser.get(f"/settings{change}").content.decode()
    assert 'value="smart"' in filled and 'value="gpt-4o"' in filled and f'value="{mine}" selected' in filled
    mixed = browser.submit("/settings/model-routes", {**data, "second": other}, on="/settings")
    assert mixed.status_code == 400 and "same requests" in mixed.content.decode()
    browser.submit(f"/settings/credentials/{mine}/remove", on="/settings")
    assert "change the route first" in browser.get("/settings").content.decode()
    assert (
        browser.submit(
            "/settings/model-routes/remove", {"asked_model": "smart", "dialect": "openai"}, on="/settings"
        ).status_code
        == 302
    )
    browser.submit(f"/settings/credentials/{mine}/remove", on="/settings")
    with acting_for(company.id):
        assert [one.name for one in ProviderCredential.objects.all()] == ["anthropic"]
