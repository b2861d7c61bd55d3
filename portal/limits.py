"""Limits: what the company allows itself, how much of it is used, and a form for one more."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import LimitForm
from serving.limits import UnableToLimit, remove_limit, set_limit, standing
from serving.models import Limit
from tenants.core.roles import Right


@page()
def limit_list(request: PortalRequest) -> HttpResponse:
    """The tenant's limits."""
    return _show_limits(request, form=LimitForm())


@action(Right.MANAGE_LIMITS)
def make_limit(request: PortalRequest) -> HttpResponse:
    """Set a limit, in place of one of the same kind."""
    form = LimitForm(request.POST)
    if not form.is_valid():
        return _show_limits(request, form=form, status=400)
    try:
        set_limit(**form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToLimit as error:
        said = f"{error}"
        form.add_error(None, f"{said[:1].upper()}{said[1:]}.")
        return _show_limits(request, form=form, status=400)
    messages.success(request, "The limit holds within seconds.")
    return redirect("portal:limits")


@action(Right.MANAGE_LIMITS)
def remove(request: PortalRequest, id: UUID) -> HttpResponse:
    """Take a limit away."""
    limit: Limit = get_object_or_404(Limit.objects.all(), id=id)
    remove_limit(limit, actor=request.member.actor, now=utc_now())
    messages.success(request, "The limit is removed.")
    return redirect("portal:limits")


def _show_limits(request: PortalRequest, *, form: LimitForm, status: int = 200) -> HttpResponse:
    limits = Limit.objects.select_related("key", "workload").order_by("-set_at", "-id")
    now = utc_now()
    rows = [(limit, *standing(limit, now)) for limit in limits]
    return show(request, "limits.html", status=status, rows=rows, form=form)
