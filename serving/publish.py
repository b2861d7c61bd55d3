"""Makes the picture of the world that gateways answer from, out of rows, through the door that reads across tenants."""

from collections import defaultdict
from datetime import datetime
from uuid import UUID

import msgspec
from django.conf import settings

from ingestion.models import Fingerprint, Workload
from ingestion.prices import rates_in_force
from serving.core.destinations import destinations_of
from serving.core.gates import Gate, StudentSpec
from serving.core.limits import LimitEntry
from serving.core.snapshot import KeyEntry, ProviderEntry, RouteEntry, Snapshot, TenantEntry
from serving.evaluate import cache_salt
from serving.models import Deployment, Limit, ModelRoute, Rollout
from tenants.data_keys import open_data_key, purpose_key
from tenants.models import ApiKey, ProviderCredential, Tenant
from tenants.provision import open_credential


def make_snapshot(now: datetime) -> Snapshot:
    """The world as of now. `version` is milliseconds since the epoch, so that it grows over restarts."""
    routes, credentials, model_routes, limits = _routes(), _credentials(), _model_routes(), _limits()
    tenants = {
        str(tenant.id): _tenant(
            tenant, credentials[tenant.id], model_routes[tenant.id], routes=routes[tenant.id], limits=limits[tenant.id]
        )
        for tenant in _all_tenants()
    }
    return Snapshot(
        version=int(now.timestamp() * 1000),
        made_at=now.timestamp(),
        keys=_keys(),
        tenants=tenants,
        vllm_urls=tuple(settings.VLLM_URLS),
        encoder_urls=tuple(settings.ENCODER_URLS),
        rates=rates_in_force(now, currency="USD"),
    )


def _all_tenants() -> list[Tenant]:
    return list(Tenant.across_tenants.all())


def _keys() -> dict[str, KeyEntry]:
    live = ApiKey.across_tenants.filter(revoked_at=None)
    return {
        key.digest: KeyEntry(tenant_id=str(key.tenant_id), key_id=str(key.id), may_override=key.may_override)
        for key in live
    }


def _credentials() -> dict[UUID, list[ProviderCredential]]:
    by_tenant: dict[UUID, list[ProviderCredential]] = defaultdict(list)
    for credential in ProviderCredential.across_tenants.order_by("name"):
        by_tenant[credential.tenant_id].append(credential)
    return by_tenant


def _model_routes() -> dict[UUID, list[ModelRoute]]:
    by_tenant: dict[UUID, list[ModelRoute]] = defaultdict(list)
    for one in ModelRoute.across_tenants.order_by("dialect", "asked_model", "position"):
        by_tenant[one.tenant_id].append(one)
    return by_tenant


def _limits() -> dict[UUID, list[LimitEntry]]:
    by_tenant: dict[UUID, list[LimitEntry]] = defaultdict(list)
    for limit in Limit.across_tenants.order_by("id"):
        by_tenant[limit.tenant_id].append(limit.entry())
    return by_tenant


def _tenant(
    tenant: Tenant,
    credentials: list[ProviderCredential],
    model_routes: list[ModelRoute],
    *,
    routes: dict[str, RouteEntry],
    limits: list[LimitEntry],
) -> TenantEntry:
    data_key = open_data_key(tenant.id, bytes(tenant.data_key_sealed))
    usual: dict[str, UUID] = {}  # by provider
    for credential in ProviderCredential.in_usual_order(credentials):
        usual.setdefault(credential.provider, credential.id)
    opened = {one.id: _provider(one, data_key, usual=one.id == usual[one.provider]) for one in credentials}
    routed: dict[str, list[ProviderEntry]] = defaultdict(list)
    for one in model_routes:
        if one.credential_id in opened:  # else it is newer than what was read before
            routed[one.asked_model].append(msgspec.structs.replace(opened[one.credential_id], model=one.model))
    providers, models = destinations_of({one.name: opened[one.id] for one in credentials}, routed)
    return TenantEntry(
        active=tenant.status == Tenant.Status.ACTIVE,
        data_key=data_key,
        subject_key=purpose_key(data_key, "subjects"),
        salt=cache_salt(data_key),
        log_content=tenant.log_content,
        ask_usage=tenant.ask_usage,
        providers=providers,
        models=models,
        routes=routes,
        limits=tuple(limits),
    )


def _provider(credential: ProviderCredential, data_key: bytes, *, usual: bool) -> ProviderEntry:
    is_its_own = credential.base_url == settings.TEACHER_BASE_URLS.get(credential.provider)
    return ProviderEntry(
        base_url=credential.base_url,
        credential=open_credential(credential, data_key),
        provider=credential.provider,
        id=str(credential.id),
        usual=usual,
        teacher="" if is_its_own else f"{credential.provider} {credential.base_url}",
    )


def _routes() -> dict[UUID, dict[str, RouteEntry]]:
    """By tenant and fingerprint. A workload without a rollout has a route too, so that its calls carry its id."""
    rollouts = {rollout.workload_id: rollout for rollout in _open_rollouts()}
    workloads = {workload.id: workload for workload in Workload.across_tenants.all()}
    routes: dict[UUID, dict[str, RouteEntry]] = defaultdict(dict)
    for fingerprint in Fingerprint.across_tenants.all():
        workload = workloads.get(fingerprint.workload_id)
        if workload is not None:
            route = _route(workload, rollouts.get(workload.id))
            routes[fingerprint.tenant_id][fingerprint.digest] = route
    return routes


def _open_rollouts() -> list[Rollout]:
    found = Rollout.across_tenants.exclude(state__in=Rollout.OVER)
    return list(found.select_related("deployment", "certificate"))


def _route(workload: Workload, rollout: Rollout | None) -> RouteEntry:
    usual_output = int(workload.figures.get("p99_output_tokens", 0))
    plain = RouteEntry(
        workload_id=str(workload.id), kind=workload.kind, usual_output=usual_output, log_share=workload.log_share
    )
    if rollout is None or rollout.deployment.status != Deployment.Status.LIVE or not rollout.certificate.gate:
        return plain
    return msgspec.structs.replace(
        plain,
        state=rollout.state,
        student_share=rollout.share,
        control_share=settings.CONTROL_SHARE,
        audit_share=settings.AUDIT_SHARE if rollout.state == Rollout.State.FULL else settings.RAMP_AUDIT_SHARE,
        shadow_share=settings.SHADOW_SHARE,
        student=msgspec.convert(rollout.deployment.spec, StudentSpec),
        gate=msgspec.convert(rollout.certificate.gate, Gate),
    )
