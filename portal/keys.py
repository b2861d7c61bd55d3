"""Keys: made and shown once, listed by prefix, revoked."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import KeyForm
from tenants.core.roles import Right
from tenants.models import ApiKey
from tenants.provision import create_key, revoke_key


@page()
def key_list(request: PortalRequest) -> HttpResponse:
    """The tenant's keys."""
    return _show_keys(request, form=KeyForm())


@action(Right.MINT_KEYS)
def make_key(request: PortalRequest) -> HttpResponse:
    """Make a key and show it, once: the answer to this POST is the only place it is ever written to."""
    form = KeyForm(request.POST)
    if not form.is_valid():
        return _show_keys(request, form=form, status=400)
    key, minted = create_key(**form.cleaned_data, actor=request.member.actor, now=utc_now())
    return _show_keys(request, form=KeyForm(), plain=minted.plain, scope=key.scope)


@action(Right.REVOKE_KEYS)
def revoke(request: PortalRequest, id: UUID) -> HttpResponse:
    """Take a key out of force."""
    key: ApiKey = get_object_or_404(ApiKey.objects.all(), id=id)
    if revoke_key(key, actor=request.member.actor, now=utc_now()):
        messages.success(request, f"{key.prefix}… is revoked.")
    else:
        messages.error(request, f"{key.prefix}… was revoked before.")
    return redirect("portal:keys")


def _show_keys(request: PortalRequest, *, status: int = 200, **context: object) -> HttpResponse:
    return show(request, "keys.html", status=status, keys=ApiKey.objects.order_by("-created_at"), **context)
