"""Where a call can be sent: a destination is a provider, one of the tenant's credentials there, and what the model is
called there. OpenAI's calls can be sent to Azure, whose newer `/openai/v1/…` takes what OpenAI's API takes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ingestion.core.calls import Provider
from serving.core.paths import with_deployment
from serving.core.snapshot import ProviderEntry, TenantEntry

EVERY_MODEL: Final = "*"
# Who can answer what comes by which paths; the first is asked where the tenant has said nothing.
SPEAKERS: dict[str, Sequence[str]] = {
    Provider.OPENAI: (Provider.OPENAI, Provider.AZURE),
    Provider.AZURE: (Provider.AZURE,),
    Provider.ANTHROPIC: (Provider.ANTHROPIC,),
}


def destinations_for(tenant: TenantEntry, provider: str, model: str) -> Sequence[ProviderEntry]:
    """Where a call for a model goes, in the order in which they are asked. `provider` is whom its path is for."""
    everywhere = tenant.providers[provider]
    return tenant.models.get(f"{provider}/{model}", everywhere) if tenant.models else everywhere


def destinations_of(
    credentials: Mapping[str, ProviderEntry], routes: Mapping[str, Sequence[ProviderEntry]]
) -> tuple[dict[str, tuple[ProviderEntry, ...]], dict[str, tuple[ProviderEntry, ...]]]:
    """A tenant's destinations by provider, and by provider/model, as a `TenantEntry` has them.

    `credentials` are by name, `routes` by the asked-for model. Where no route of `EVERY_MODEL` says more, calls go
    under the credential that bears its provider's name, or else the first by name.
    """
    providers, models = {}, {}
    for provider, speakers in SPEAKERS.items():
        able = sorted(
            (speakers.index(entry.provider), name != entry.provider, name)
            for name, entry in credentials.items()
            if entry.provider in speakers
        )
        routed = {model: tuple(one for one in there if one.provider in speakers) for model, there in routes.items()}
        everywhere = routed.pop(EVERY_MODEL, ())
        if able:
            providers[provider] = everywhere or (credentials[able[0][2]],)
        models.update({f"{provider}/{model}": there for model, there in routed.items() if there})
    return providers, models


def target_at(destination: ProviderEntry, target: str, *, provider: str) -> str:
    """The path and query at a destination of what came with `target` by the paths of `provider`."""
    if destination.provider != Provider.AZURE:
        return target
    if provider != Provider.AZURE:
        return "/openai" + target
    path, mark, query = target.partition("?")
    return (with_deployment(path, destination.model) if destination.model else path) + mark + query


def shared_dialect(providers: Iterable[str]) -> str | None:
    """The provider whose requests each of these takes, if there is one."""
    named = set(providers)
    return next((str(asked) for asked, speakers in SPEAKERS.items() if named <= set(speakers)), None)


def passes_on(status: int) -> bool:
    """Whether another destination may answer what this one did not: it is busy, or broken."""
    return status == 429 or status >= 500
