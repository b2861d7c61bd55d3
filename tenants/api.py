"""How a machine proves to the API which tenant it is."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tenants.core.keys import digest_key
from tenants.models import ApiKey


class KeyCaller:
    """Who calls when an API key does: a tenant, and no person."""

    is_authenticated = True
    is_anonymous = False
    is_staff = False

    def __init__(self, tenant_id: UUID, key_id: UUID) -> None:
        self.tenant_id = tenant_id
        self.key_id = key_id


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer us_…`, looked up by the full key's digest."""

    def authenticate(self, request: Request) -> tuple[KeyCaller, Any] | None:
        """The caller, or None where no bearer key is sent. Raises AuthenticationFailed for an unknown or revoked key."""
        scheme, _, plain = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not plain:
            return None
        key = ApiKey.across_tenants.filter(digest=digest_key(plain), revoked_at=None).only("id", "tenant_id").first()
        if key is None:
            raise AuthenticationFailed("unknown or revoked key")
        return KeyCaller(key.tenant_id, key.id), None

    def authenticate_header(self, request: Request) -> str:
        """Makes the refusal a 401."""
        return "Bearer"


def utc_now() -> datetime:
    """The clock at this edge."""
    return datetime.now(UTC)
