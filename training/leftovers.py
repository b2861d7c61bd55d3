"""Removes what runs have left on a trainer's disk: rows of a tenant lie there only while a trainer may read them.

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
from training.models import TrainingRun

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


def _run_id(path: Path) -> UUID | None:
    try:
        return UUID(path.name)
    except ValueError:
        return None
