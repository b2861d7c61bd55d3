"""Removes what runs have left on a trainer's disk: rows of a tenant lie there only while a trainer may read them.

A run tidies up after itself. This is for those that could not: the machine was lost and came back after another had
finished the run, or the tenant was suspended in between.
"""

import shutil
from pathlib import Path
from uuid import UUID

from django.conf import settings

from tenants.models import tenant_ids
from training.models import TrainingRun


def remove_leftovers() -> int:
    """Remove the folders of runs that are over, unknown, or a suspended tenant's; gives how many. Safe at any time.

    Folders are listed before runs are asked for: one that is made in between belongs to a run that is open by then.
    """
    folders = {found: path for path in Path(settings.RUNS_DIR).glob("*/") if (found := _run_id(path)) is not None}
    open_runs = TrainingRun.across_tenants.filter(
        id__in=list(folders), status__in=TrainingRun.OPEN, tenant_id__in=list(tenant_ids())
    )
    over = folders.keys() - set(open_runs.values_list("id", flat=True))
    for run_id in over:
        shutil.rmtree(folders[run_id], ignore_errors=True)
    return len(over)


def _run_id(path: Path) -> UUID | None:
    try:
        return UUID(path.name)
    except ValueError:
        return None
