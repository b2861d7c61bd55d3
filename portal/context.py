"""What every page's frame shows."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest


def frame(request: HttpRequest) -> dict[str, Any]:
    """The gateway's address, whether this is a demo, and who is looking (None outside a tenant)."""
    return {"gateway_url": settings.GATEWAY_URL, "demo": settings.DEMO, "member": getattr(request, "member", None)}
