"""Finds the adapters that learnt from a person who was erased since: their weights may still know what the rows do not.

Marking is all that happens to an adapter that may answer. The event is what a tenant sees and decides on; the next
dataset version no longer holds the person, and the adapter made of it takes over. Once it has, the weights go.
"""

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from tenants.events import record_event
from tenants.models import Event
from tenants.scope import acting_for
from training.artifacts import UnableToStore, drop_artifact
from training.models import Adapter

log = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(minutes=5)
ERASED, TAINTED, DROPPED = "subject.erased", "adapter.tainted", "adapter.dropped"


def taint_due(tenant_id: UUID, *, now: datetime) -> list[UUID]:
    """Mark the adapters of every erasure in a tenant's log that are not marked yet; gives their ids."""
    marked: list[UUID] = []
    with acting_for(tenant_id):
        for event in Event.objects.filter(kind=ERASED).order_by("at"):
            dataset_ids = [UUID(found) for found in event.data.get("datasets", [])]
            marked += taint_adapters(dataset_ids, erased_at=event.at, now=now)
    return marked


def taint_adapters(dataset_ids: Collection[UUID], *, erased_at: datetime, now: datetime) -> list[UUID]:
    """Mark, once each, the adapters whose run began before the rows were gone. A later run never read them.

    Runs and erasures are timed by different machines' clocks: those that began a little later are marked as well.
    """
    if not dataset_ids:
        return []
    read_them = Q(run__started_at=None) | Q(run__started_at__lte=erased_at + CLOCK_SKEW)
    trained = Adapter.objects.filter(read_them, dataset_id__in=list(dataset_ids)).order_by("created_at")
    known = set(Event.objects.filter(kind=TAINTED).values_list("subject_id", flat=True))
    fresh = [adapter for adapter in trained if str(adapter.id) not in known]
    for adapter in fresh:
        record_event(TAINTED, now=now, subject_id=adapter.id, name=adapter.name, dataset=str(adapter.dataset_id))
    return [adapter.id for adapter in fresh]


def drop_tainted(tenant_id: UUID, *, now: datetime) -> list[UUID]:
    """Remove the weights of marked adapters that were rejected or retired; gives their ids. Safe to run twice."""
    with acting_for(tenant_id):
        tainted = [UUID(found) for found in Event.objects.filter(kind=TAINTED).values_list("subject_id", flat=True)]
        over = list(Adapter.objects.filter(id__in=tainted, status__in=Adapter.OVER, dropped_at=None))
    return [adapter.id for adapter in over if _drop(adapter, now)]


def _drop(adapter: Adapter, now: datetime) -> bool:
    try:
        drop_artifact(key=adapter.artifact_key)
    except UnableToStore:  # the next look tries again
        log.warning("the weights of adapter %s are still there: the store is away", adapter.id)
        return False
    with acting_for(adapter.tenant_id):
        dropped = Adapter.objects.filter(id=adapter.id, dropped_at=None).update(dropped_at=now)
        if dropped:
            record_event(DROPPED, now=now, subject_id=adapter.id, name=adapter.name)
    return bool(dropped)
