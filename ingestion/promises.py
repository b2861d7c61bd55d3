"""What a tenant asks of a workload's student: how often it may differ, how sure we are to be, who approves."""

import math
from datetime import datetime

from ingestion.models import Workload
from tenants.events import record_event


class UnableToPromise(Exception):
    """alpha or delta is out of range, or a choice is unknown; the message says which, for people."""


def state_promise(
    workload: Workload, *, alpha: float, delta: float, promise: str, approval: str, actor: str, now: datetime
) -> None:
    """Record the promise; certificates issued from now on hold to it. Raises UnableToPromise."""
    check_promise(alpha=alpha, delta=delta)
    if promise not in Workload.Promise.values or approval not in Workload.Approval.values:
        raise UnableToPromise("promise is per_answer or per_call; approval is tenant, automatic or ask_first")
    Workload.objects.filter(id=workload.id).update(alpha=alpha, delta=delta, promise=promise, approval=approval)
    record_event(
        "workload.promise_stated",
        now=now,
        actor=actor,
        subject_id=workload.id,
        alpha=alpha,
        delta=delta,
        promise=promise,
        approval=approval,
    )


def check_promise(*, alpha: float, delta: float) -> None:
    """Raises UnableToPromise where alpha or delta is no share that can be promised."""
    for name, value, highest in (("alpha", alpha, 0.5), ("delta", delta, 0.5)):
        if not (math.isfinite(value) and 0.001 <= value <= highest):
            raise UnableToPromise(f"{name} lies between 0.001 and {highest}; {value} does not")
