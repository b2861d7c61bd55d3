"""How a caller proves to the web process which tenant they are: an API key, or a person's session and membership.

Apart from the views, because the framework reads its authentication classes while its own views are being imported.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request

from tenants.core.keys import digest_key
from tenants.core.roles import KEY_RIGHTS, Right, in_standing, rights_of
from tenants.models import ApiKey, Membership


class KeyCaller:
    """Who calls when an API key does: a tenant, and no person."""

    is_authenticated = True
    is_anonymous = False
    is_staff = False

    def __init__(self, key: ApiKey) -> None:
        self.tenant_id = key.tenant_id
        self.key_id = key.id
        self.suspended = key.tenant.is_suspended


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer us_…`, looked up by the full key's digest."""

    def authenticate(self, request: Request) -> tuple[KeyCaller, Any] | None:
        """The caller, or None where no bearer key is sent.

        Raises AuthenticationFailed on an unknown or revoked key, PermissionDenied on one that is for calls alone.
        """
        scheme, _, plain = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not plain:
            return None
        found = ApiKey.across_tenants.filter(digest=digest_key(plain), revoked_at=None).select_related("tenant")
        key = found.only("id", "scope", "tenant__status").first()
        if key is None:
            raise AuthenticationFailed("unknown or revoked key")
        if key.scope != ApiKey.Scope.MANAGE:
            raise PermissionDenied("this key is for calls alone: the API takes one of scope manage")
        return KeyCaller(key), None

    def authenticate_header(self, request: Request) -> str:
        """Makes the refusal a 401."""
        return "Bearer"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells the schema how a key is sent."""

    target_class = "tenants.auth.KeyAuthentication"
    name = "key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """The scheme in OpenAPI's words."""
        return {"type": "http", "scheme": "bearer"}


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a request acts, under which name its events go down, and what it may change."""

    tenant_id: UUID
    actor: str
    rights: frozenset[Right]
    suspended: bool


def identify(request: Request) -> Caller:
    """The caller behind an authenticated request: a key's tenant, or the person's own. Raises PermissionDenied."""
    user: object = request.user
    if isinstance(user, KeyCaller):
        rights = in_standing(KEY_RIGHTS, suspended=user.suspended)
        return Caller(user.tenant_id, f"key:{user.key_id}", rights, user.suspended)
    member = membership_of(request.user.pk) if request.user.pk else None
    if member is None:
        raise PermissionDenied("no membership")
    suspended = member.tenant.is_suspended
    rights = rights_of(member.role, suspended=suspended)
    return Caller(member.tenant_id, f"user:{request.user.pk}", rights, suspended)


def membership_of(user_id: int) -> Membership | None:
    """The named door from a person to the one tenant they belong to."""
    held = Membership.across_tenants.select_related("tenant").filter(user_id=user_id)
    found: Membership | None = held.order_by("id").first()
    return found
