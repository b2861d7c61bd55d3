"""Erasures: whom the tenant had forgotten, and the form that has another person forgotten."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from ingestion.erase import UnableToErase, request_erasure
from ingestion.models import Erasure
from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import ErasureForm
from portal.paging import newest_first
from tenants.core.roles import Right


@page()
def erasure_list(request: PortalRequest) -> HttpResponse:
    """What was asked for, by whom, and how far it is; never of whom."""
    return _show_erasures(request, form=ErasureForm())


@action(Right.ERASE)
def erase(request: PortalRequest) -> HttpResponse:
    """Take the request; a worker carries it out within minutes."""
    form = ErasureForm(request.POST)
    if not form.is_valid():
        return _show_erasures(request, form=form, status=400)
    try:
        request_erasure(form.cleaned_data["subject"], actor=request.member.actor, clock=utc_now)
    except UnableToErase as error:
        form.add_error("subject", str(error))
        return _show_erasures(request, form=form, status=400)
    messages.success(request, "Nothing of theirs is written from now on. What there is goes within minutes.")
    return redirect("portal:erasures")


def _show_erasures(request: PortalRequest, *, form: ErasureForm, status: int = 200) -> HttpResponse:
    found = newest_first(Erasure.objects.all(), before=request.GET.get("before", ""), field="requested_at")
    return show(request, "erasures.html", status=status, form=form, erasures=found.rows, next=found.next)
