"""How much of a workload's traffic is kept with what was asked and answered: the facts of every call are."""

import math
from datetime import datetime

from ingestion.models import Workload
from tenants.events import record_event


class UnableToSample(Exception):
    """The share is none; the message says what one is, for people."""


def state_log_share(workload: Workload, *, log_share: float, actor: str, now: datetime) -> None:
    """Keep the content of this share of a workload's calls, drawn at random, within seconds. Raises UnableToSample.

    What an audit or the control arm needs is kept besides.
    """
    if not (math.isfinite(log_share) and 0 <= log_share <= 1):
        raise UnableToSample(f"log_share lies between 0 and 1; {log_share} does not")
    Workload.objects.filter(id=workload.id).update(log_share=log_share)
    record_event("workload.log_share_stated", now=now, actor=actor, subject_id=workload.id, log_share=log_share)
