"""What a tenant chooses for all of itself: its name, who approves rollouts, whether bodies are kept."""

from datetime import datetime

from tenants.events import record_event
from tenants.models import Tenant


class UnableToPrefer(Exception):
    """The choice is unknown; the message says which, for people."""


def state_preferences(*, name: str, approval: str, log_content: bool, actor: str, now: datetime) -> None:
    """Record the choices of the tenant in force. Raises UnableToPrefer."""
    if approval not in Tenant.Approval.values:
        raise UnableToPrefer("approval is automatic or ask_first")
    if not name.strip():
        raise UnableToPrefer("a tenant has a name")
    Tenant.objects.update(name=name.strip()[:120], approval=approval, log_content=log_content)
    record_event("tenant.preferences_stated", now=now, actor=actor, approval=approval, log_content=log_content)
