"""What a tenant chooses for all of itself: its name, who approves rollouts, what is kept, and what is asked for."""

from datetime import datetime

from tenants.events import record_event
from tenants.models import Tenant


class UnableToPrefer(Exception):
    """The choice is unknown; the message says which, for people."""


def state_preferences(
    *, name: str, approval: str, log_content: bool, ask_usage: bool, actor: str, now: datetime
) -> None:
    """Record the choices of the tenant in force. Raises UnableToPrefer."""
    if approval not in Tenant.Approval.values:
        raise UnableToPrefer("approval is automatic or ask_first")
    if not name.strip():
        raise UnableToPrefer("a tenant has a name")
    facts = {"approval": approval, "log_content": log_content, "ask_usage": ask_usage}
    Tenant.objects.update(name=name.strip()[:120], **facts)
    record_event("tenant.preferences_stated", now=now, actor=actor, **facts)
