"""Webhooks: endpoints with their secret shown once, and what was delivered."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import EndpointForm
from portal.paging import newest_first
from tenants.core.roles import Right
from tenants.models import WebhookDelivery, WebhookEndpoint
from tenants.webhook_client import UnableToUseUrl
from tenants.webhooks import create_endpoint, disable_endpoint, enable_endpoint


@page()
def endpoint_list(request: PortalRequest) -> HttpResponse:
    """The tenant's endpoints and their latest deliveries."""
    return _show_endpoints(request, form=EndpointForm())


@action(Right.MANAGE_WEBHOOKS)
def make_endpoint(request: PortalRequest) -> HttpResponse:
    """Make an endpoint and show its secret, once."""
    form = EndpointForm(request.POST)
    if not form.is_valid():
        return _show_endpoints(request, form=form, status=400)
    try:
        asked = form.cleaned_data
        _, secret = create_endpoint(asked["url"], kinds=asked["kinds"], actor=request.member.actor, now=utc_now())
    except UnableToUseUrl as error:
        form.add_error("url", f"{error}")
        return _show_endpoints(request, form=form, status=400)
    return _show_endpoints(request, form=EndpointForm(), secret=secret)


@action(Right.MANAGE_WEBHOOKS)
def disable(request: PortalRequest, id: UUID) -> HttpResponse:
    """No more deliveries."""
    disable_endpoint(_endpoint(id), actor=request.member.actor, now=utc_now())
    messages.success(request, "The endpoint is disabled.")
    return redirect("portal:webhooks")


@action(Right.MANAGE_WEBHOOKS)
def enable(request: PortalRequest, id: UUID) -> HttpResponse:
    """Deliveries again."""
    try:
        enable_endpoint(_endpoint(id), actor=request.member.actor, now=utc_now())
    except UnableToUseUrl as error:
        messages.error(request, f"{error}.".capitalize())
        return redirect("portal:webhooks")
    messages.success(request, "The endpoint is enabled.")
    return redirect("portal:webhooks")


def _endpoint(id: UUID) -> WebhookEndpoint:
    found: WebhookEndpoint = get_object_or_404(WebhookEndpoint.objects.all(), id=id)
    return found


def _show_endpoints(request: PortalRequest, *, status: int = 200, **context: object) -> HttpResponse:
    deliveries = WebhookDelivery.objects.select_related("endpoint", "event")
    found = newest_first(deliveries, before=request.GET.get("before", ""), field="due_at", size=25)
    endpoints = WebhookEndpoint.objects.order_by("-created_at")
    return show(
        request, "webhooks.html", status=status, endpoints=endpoints, deliveries=found.rows, next=found.next, **context
    )
