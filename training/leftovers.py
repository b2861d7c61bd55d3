"""Removes what runs have left behind: rows on a trainer's disk, and artifacts in the store that no adapter is made of.

A run tidies up after itself. This is for those that could not: the machine was lost and came back after another had
finished the run, or the tenant was suspended in between.
"""

import logging
import shutil
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from tenants.models import tenant_ids
from tenants.scope import acting_for
from training.artifacts import drop_artifact, stored_artifacts
from training.launch import artifact_prefix
from training.models import Adapter, TrainingRun

log = logging.getLogger(__name__)


def remove_leftovers(*, now: datetime) -> int:
    """Remove the folders of runs that are over, unknown, or waiting while their tenant is suspended; gives how many.

    Safe at any time, also where trainers share a disk: what a trainer is at stays. Folders are listed before runs are
    asked for: one that is made in between belongs to a run that is at work by then.
    """
    folders = {found: path for path in Path(settings.RUNS_DIR).glob("*/") if (found := _run_id(path)) is not None}
    wanted = Q(status=TrainingRun.Status.RUNNING, lease_until__gte=now) | Q(tenant_id__in=tenant_ids())
    kept = TrainingRun.across_tenants.filter(wanted, id__in=list(folders), status__in=TrainingRun.OPEN)
    over = folders.keys() - set(kept.values_list("id", flat=True))
    for run_id in over:
        shutil.rmtree(folders[run_id], ignore_errors=True)
    left = [str(run_id) for run_id in over if folders[run_id].exists()]
    if left:
        log.warning("what these runs left cannot be removed: %s", ", ".join(left))
    return len(over) - len(left)


def drop_strays(tenant_id: UUID) -> list[str]:
    """Drop what a tenant's lost attempts have put into the store; gives the keys. Safe at any time, and to run twice.

    No erasure would find them: they know what their rows held, and no adapter has their name. Keys are listed first,
    then open runs are asked for, then adapters: a run that has ended in between has left its adapter by then.
    Raises UnableToStore.
    """
    keys = stored_artifacts(tenant_id)
    with acting_for(tenant_id):
        open_runs = TrainingRun.objects.filter(status__in=TrainingRun.OPEN).select_related("dataset")
        at_work = tuple(f"{artifact_prefix(run)}-" for run in open_runs)
        kept = set(Adapter.objects.filter(artifact_key__in=keys).values_list("artifact_key", flat=True))
    strays = [key for key in keys if key not in kept and not key.startswith(at_work)]
    for key in strays:
        drop_artifact(key=key)
    return strays


def _run_id(path: Path) -> UUID | None:
    try:
        return UUID(path.name)
    except ValueError:
        return None
