"""Where a call can be sent, and how: a destination is a provider, one of the tenant's credentials there, and what the
model is called there.

Azure has paths of its own, `/openai/deployments/{deployment}/…` and `/openai/…`, each with a twin below `/v1/`. Its
newer `/openai/v1/…` takes what OpenAI's API takes, so that a call for OpenAI can be sent there too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

from ingestion.core.calls import Provider
from serving.core.snapshot import ProviderEntry, TenantEntry

EVERY_MODEL = "*"
# Who can answer what comes by which paths; the first is asked where the tenant has said nothing.
SPEAKERS: dict[str, Sequence[str]] = {
    Provider.OPENAI: (Provider.OPENAI, Provider.AZURE),
    Provider.AZURE: (Provider.AZURE,),
    Provider.ANTHROPIC: (Provider.ANTHROPIC,),
}
_DEPLOYMENT = re.compile(rb"/openai/deployments/([^/]+)(/.+)")
_BUSY = frozenset({429, 529})


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
    found = _DEPLOYMENT.fullmatch(path.encode("latin-1"))
    if found is None or not destination.model:
        return target
    return f"/openai/deployments/{quote(destination.model, safe='')}{found[2].decode('latin-1')}{mark}{query}"


def twin_of(path: bytes) -> tuple[bytes, str]:
    """The path under `/v1/` that asks for the same as a raw path of Azure's, and the deployment it names, if any."""
    found = _DEPLOYMENT.fullmatch(path)
    if found is not None:
        return b"/v1" + found[2], unquote(found[1].decode("latin-1"))
    rest = path.removeprefix(b"/openai")
    return (rest if rest.startswith(b"/v1/") else b"/v1" + rest), ""


def speak_alike(providers: Iterable[str]) -> bool:
    """Whether the same request can be sent to each of these."""
    named = set(providers)
    return any(named <= set(speakers) for speakers in SPEAKERS.values())


def passes_on(status: int) -> bool:
    """Whether another destination may answer what this one did not: it is busy, or broken."""
    return status in _BUSY or status >= 500
