"""Who is looking: finds the person's one tenant from the session and runs the page inside it, with their rights."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Concatenate, ParamSpec, cast
from uuid import UUID

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.cache import add_never_cache_headers
from django_htmx.http import HttpResponseClientRedirect

from tenants.core.roles import Right, rights_of
from tenants.models import Membership
from tenants.scope import acting_for


@dataclass(frozen=True, slots=True)
class Member:
    """The person behind a request, in their tenant."""

    user_id: int
    email: str
    tenant_id: UUID
    tenant_name: str
    role: str
    rights: frozenset[Right]
    suspended: bool

    @property
    def actor(self) -> str:
        """The name their events go down under."""
        return f"user:{self.user_id}"

    @property
    def may(self) -> dict[str, bool]:
        """Each right by its name, for templates."""
        return {right.value: right in self.rights for right in Right}


class PortalRequest(HttpRequest):
    """A request that `page` or `action` has let in."""

    member: Member


Given = ParamSpec("Given")
View = Callable[Concatenate[PortalRequest, Given], HttpResponse]
Bare = Callable[Concatenate[HttpRequest, Given], HttpResponse]


def page(*, needs: Right | None = None) -> Callable[[View[Given]], Bare[Given]]:
    """A page a member may read, if `needs` is among their rights."""
    return _guarded(("GET", "HEAD"), needs)


def action(needs: Right | None) -> Callable[[View[Given]], Bare[Given]]:
    """A change a member may make, by POST alone (with Django's CSRF token); to their own account without a right."""
    return _guarded(("POST",), needs)


def find_member(request: HttpRequest) -> Member | None:
    """The named door from a session to a tenant. None for a person without one."""
    user = request.user
    if not user.is_authenticated:
        return None
    found = Membership.across_tenants.select_related("tenant").filter(user_id=user.pk).order_by("id").first()
    if found is None:
        return None
    suspended = found.tenant.is_suspended
    rights = rights_of(found.role, suspended=suspended)
    return Member(user.pk, user.email, found.tenant_id, found.tenant.name, found.role, rights, suspended)


def utc_now() -> datetime:
    """The clock at this edge."""
    return datetime.now(UTC)


def show(request: HttpRequest, template: str, status: int = 200, **context: object) -> HttpResponse:
    """Render a page of this app."""
    return render(request, f"portal/{template}", context, status=status)


def _guarded(methods: tuple[str, ...], needs: Right | None) -> Callable[[View[Given]], Bare[Given]]:
    def wrap(view: View[Given]) -> Bare[Given]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Given.args, **kwargs: Given.kwargs) -> HttpResponse:
            if request.method not in methods:
                return HttpResponseNotAllowed(methods, render_to_string("405.html", request=request))
            member = find_member(request)
            if member is None:
                return _turn_away(request)
            seen = cast(PortalRequest, request)
            seen.member = member
            if needs is not None and needs not in member.rights:
                raise PermissionDenied("suspended" if member.suspended else "this takes another role")
            with acting_for(member.tenant_id):
                response = view(seen, *args, **kwargs)
            add_never_cache_headers(response)
            return response

        return cast(Bare[Given], guarded)

    return wrap


def _turn_away(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        if request.user.is_staff:
            return HttpResponseRedirect("/admin/")
        raise PermissionDenied("no membership")
    if request.headers.get("HX-Request"):
        return HttpResponseClientRedirect("/login")
    return redirect_to_login(request.get_full_path() if request.method == "GET" else "/")
