"""Where calls go: by provider, by model, and by Azure's paths."""

import pytest

from ingestion.core.calls import Provider
from serving.core.destinations import destinations_for, destinations_of, passes_on, shared_dialect, target_at
from serving.core.snapshot import ProviderEntry, TenantEntry


def at(provider: str, name: str = "", model: str = "") -> ProviderEntry:
    return ProviderEntry(base_url=f"https://{name or provider}.example", credential="c", provider=provider, model=model)


def tenant_of(credentials, routes=None) -> TenantEntry:
    providers, models = destinations_of(credentials, routes or {})
    return TenantEntry(active=True, data_key=b"", subject_key=b"", salt="", providers=providers, models=models)


def test_calls_go_under_the_credential_that_bears_the_providers_name():
    eu, usual = at("openai", "eu"), at("openai")
    tenant = tenant_of({"eu": eu, "openai": usual, "anthropic": at("anthropic")})
    assert destinations_for(tenant, "openai", "gpt-4o") == (usual,)
    assert destinations_for(tenant_of({"eu": eu, "us": at("openai", "us")}), "openai", "gpt-4o") == (eu,)


def test_who_has_azure_alone_may_call_by_either_path_and_nobody_by_a_path_of_a_provider_they_have_not():
    azure = at("azure")
    assert tenant_of({"azure": azure}).providers == {"openai": (azure,), "azure": (azure,)}
    assert set(tenant_of({"openai": at("openai")}).providers) == {"openai"}
    both = tenant_of({"azure": azure, "openai": at("openai")})
    assert destinations_for(both, "openai", "gpt-4o")[0].provider == "openai"
    assert destinations_for(both, "azure", "gpt-4o") == (azure,)


def test_a_route_says_where_a_model_goes_and_the_star_where_all_others_do():
    usual, eu, azure = at("openai"), at("openai", "eu"), at("azure", model="prod")
    routes = {"gpt-4o": [azure, usual], "*": [eu, usual], "claude": [at("anthropic", model="claude-x")]}
    tenant = tenant_of({"openai": usual, "eu": eu, "azure": azure, "anthropic": at("anthropic")}, routes)
    assert destinations_for(tenant, "openai", "gpt-4o") == (azure, usual)
    assert destinations_for(tenant, "openai", "o3") == (eu, usual)
    assert destinations_for(tenant, "azure", "gpt-4o") == (azure,), "no other can answer what comes by Azure's path"
    assert destinations_for(tenant, "azure", "other") == (azure,)
    assert destinations_for(tenant, "openai", "claude") == (eu, usual), "a route of another dialect is none of ours"
    assert destinations_for(tenant, "anthropic", "claude")[0].model == "claude-x"


@pytest.mark.parametrize(
    ("place", "target", "provider", "expected"),
    [
        (at("openai"), "/v1/chat/completions?x=1", "openai", "/v1/chat/completions?x=1"),
        (at("azure"), "/v1/chat/completions", "openai", "/openai/v1/chat/completions"),
        (
            at("azure"),
            "/openai/deployments/a/chat/completions?api-version=2024-10-21",
            "azure",
            "/openai/deployments/a/chat/completions?api-version=2024-10-21",
        ),
        (
            at("azure", model="b c/d"),
            "/openai/deployments/a/embeddings?api-version=2024-10-21",
            "azure",
            "/openai/deployments/b%20c%2Fd/embeddings?api-version=2024-10-21",
        ),
        (at("azure", model="b"), "/openai/files?api-version=1", "azure", "/openai/files?api-version=1"),
    ],
)
def test_what_a_path_becomes_at_its_destination(place, target, provider, expected):
    assert target_at(place, target, provider=provider) == expected


def test_busy_and_broken_destinations_pass_a_call_on_and_a_refusal_of_the_call_itself_does_not():
    assert all(map(passes_on, (429, 500, 502, 503, 504, 529)))
    assert not any(map(passes_on, (200, 400, 401, 403, 404, 413, 422)))


def test_one_request_cannot_go_to_two_dialects():
    assert shared_dialect(["azure", "openai"]) == "openai" and shared_dialect(["anthropic"]) == "anthropic"
    assert shared_dialect(["openai", "anthropic"]) is None and set(Provider) == {"openai", "anthropic", "azure"}
