"""Brings candidate adapters onto the replicas, keeps live ones there, and takes retired ones off.

Data flow: a candidate adapter without a deployment gets one → its artifact is fetched and checked → encoder and vLLM
load it → live, with the exact `StudentSpec` that every later question uses. A replica that restarted is found without
the adapter at the next look, and given it again. What cannot be loaded is tried at every look for an hour, then once an
hour for a day, and then rejected.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from django.conf import settings
from django.db.models import Q

from ingestion.core.templates import Template
from serving.core.gates import Rung, StudentSpec
from serving.models import Deployment, Rollout
from serving.replicas import UnableToLoad, load_adapter, unload_adapter
from tenants.scope import acting_for
from training.artifacts import UnableToFetch, fetch_artifact
from training.models import Adapter

log = logging.getLogger(__name__)

STUCK = timedelta(minutes=5)  # a loading that takes longer lost its worker
SOON = timedelta(hours=1)  # after which a loading that fails is tried less often
AGAIN = timedelta(hours=1)
AT_LAST = timedelta(hours=24)  # after which it is not tried any more
AT_ONCE = 4  # adapters taken off in one look
Status = Deployment.Status


def open_deployments(tenant_id: UUID, *, now: datetime) -> int:
    """Give every candidate adapter its deployment. Safe to run twice."""
    with acting_for(tenant_id):
        waiting = Adapter.objects.filter(status=Adapter.Status.CANDIDATE, deployments=None)
        made = [
            Deployment.objects.create(
                adapter=adapter, spec=msgspec.to_builtins(spec_of(adapter)), created_at=now, changed_at=now
            )
            for adapter in waiting.select_related("dataset")
        ]
    return len(made)


def deployments_due(tenant_id: UUID, *, now: datetime) -> list[UUID]:
    """Deployments to load: new ones, stuck and failed ones, and live ones, which a replica may have forgotten."""
    fresh = Q(status__in=[Status.PENDING, Status.LIVE])
    stuck = Q(status=Status.LOADING, changed_at__lt=now - STUCK)
    failed = Q(status=Status.FAILED, changed_at__lte=now - AGAIN, adapter__status=Adapter.Status.CANDIDATE)
    with acting_for(tenant_id):
        return list(Deployment.objects.filter(fresh | stuck | failed).values_list("id", flat=True))


def deploy(tenant_id: UUID, deployment_id: UUID, *, now: datetime) -> bool:
    """Load one deployment into every replica that lacks it; True if it is live afterwards."""
    with acting_for(tenant_id):
        deployment = Deployment.objects.select_related("adapter").get(id=deployment_id)
        if not _may_load(deployment):
            return False
        if deployment.status != Status.LIVE and not deployment.advance(Status.LOADING, now):
            return False
    try:
        _load(deployment)
    except (UnableToLoad, UnableToFetch) as error:
        return _note_failure(deployment, str(error), now)
    with acting_for(tenant_id):
        return deployment.status == Status.LIVE or deployment.advance(Status.LIVE, now, live_at=now, failing_since=None)


def retire_drained(tenant_id: UUID, *, now: datetime) -> int:
    """Take adapters off the replicas whose deployments were told to drain; gives how many need no more looks.

    A few at a time, the longest waiting first, each written down at once. One that some replica would not let go of for
    a day is given up with a warning: that replica most likely restarted without it, or is no more.
    """
    with acting_for(tenant_id):
        told = Deployment.objects.filter(status=Status.DRAINING, changed_at__lt=now - timedelta(seconds=30))
        draining = list(told.select_related("adapter").order_by("changed_at")[:AT_ONCE])
    return sum(_retire(deployment, now) for deployment in draining)


def _retire(deployment: Deployment, now: datetime) -> bool:
    adapter = deployment.adapter
    if not asyncio.run(unload_adapter(adapter.name, rung=Rung(adapter.rung), **_replicas())):
        if deployment.changed_at >= now - AT_LAST:
            return False
        log.warning("deployment %s: a replica did not let go of its adapter for a day", deployment.id)
    with acting_for(deployment.tenant_id):
        return deployment.advance(Status.GONE, now)


def drain(deployment: Deployment, *, now: datetime) -> bool:
    """Tell a deployment to leave the replicas once no snapshot sends calls to it any more."""
    return deployment.status in (Status.LIVE, Status.FAILED) and deployment.advance(Status.DRAINING, now)


def drain_rejected(tenant_id: UUID, *, now: datetime) -> None:
    """Rejected and retired adapters need not stay on the replicas, nor on those few that did load one."""
    with acting_for(tenant_id):
        gone = [Adapter.Status.REJECTED, Adapter.Status.RETIRED]
        in_use = Rollout.objects.exclude(state__in=Rollout.OVER).values("deployment_id")
        there = Deployment.objects.filter(status__in=[Status.LIVE, Status.FAILED], adapter__status__in=gone)
        for deployment in there.exclude(id__in=in_use):
            drain(deployment, now=now)


def spec_of(adapter: Adapter) -> StudentSpec:
    """How to ask this adapter, from its dataset and the card its trainer wrote."""
    dataset, card = adapter.dataset, adapter.card
    return StudentSpec(
        adapter=adapter.name,
        rung=Rung(adapter.rung),
        kind=dataset.kind,
        template=msgspec.convert(dataset.template, Template),
        labels=tuple(sorted(dataset.labels)),
        labels_display=dict(dataset.labels),
        answer_schema=dataset.answer_schema,
        prompt_prefix=card.get("prompt_prefix", ""),
        prompt_suffix=card.get("prompt_suffix", ""),
        control_tokens=tuple(card.get("control_tokens", ())),
        max_query_chars=dataset.max_query_chars,
        max_output_tokens=int(card.get("max_output_tokens", 64)),
        base_model=settings.BASE_MODEL_NAME if adapter.rung == Rung.LORA else "",
    )


def _may_load(deployment: Deployment) -> bool:
    if deployment.status == Status.FAILED:
        return bool(deployment.adapter.status == Adapter.Status.CANDIDATE)
    return deployment.status in (Status.LIVE, Status.PENDING, Status.LOADING)


def _load(deployment: Deployment) -> None:
    adapter = deployment.adapter
    directory = fetch_artifact(key=adapter.artifact_key, checksum=adapter.checksum)
    asyncio.run(load_adapter(adapter.name, directory, rung=Rung(adapter.rung), **_replicas()))


def _note_failure(deployment: Deployment, error: str, now: datetime) -> bool:
    """A live deployment stays live: gateways fall back to the teacher until the replica is well again."""
    log.warning("deployment %s: %s", deployment.id, error)
    with acting_for(deployment.tenant_id):
        since = deployment.failing_since or now
        Deployment.objects.filter(id=deployment.id).update(error=error[:300], failing_since=since)
        if deployment.status != Status.LOADING:
            return False
        tried = now - since
        moved = deployment.advance(Status.FAILED if tried > SOON else Status.PENDING, now, error=error[:300])
        if moved and tried > AT_LAST:
            deployment.adapter.advance(Adapter.Status.REJECTED, now, reason="no replica could load it for a day")
    return False


def _replicas() -> dict[str, list[str]]:
    return {"encoder_urls": settings.ENCODER_URLS, "vllm_urls": settings.VLLM_URLS}
