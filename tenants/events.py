"""Writes what happened into the tenant's log, in the transaction of what happened."""

from datetime import datetime
from typing import Any

from tenants.models import Event


def record_event(kind: str, *, now: datetime, subject_id: object = "", actor: str = "system", **data: Any) -> Event:
    """Append an event for the tenant in force. `data` holds ids, figures and names that the tenant gave, never a
    prompt, an answer or a secret.
    """
    return Event.objects.create(kind=kind, at=now, actor=actor, subject_id=str(subject_id), data=data)
