"""Calls: the log, and one of them by its id with what was asked and answered."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from ingestion.core.calls import Arm
from ingestion.models import Call, Workload
from portal.access import PortalRequest, action, page, show, utc_now
from portal.bodies import open_call
from portal.paging import newest_first
from serving.models import Audit
from tenants.core.roles import Right
from tenants.models import ApiKey, ProviderCredential


@page()
def call_list(request: PortalRequest) -> HttpResponse:
    """Calls, newest first, of one arm or one workload if asked; straight to one whose id is given."""
    wanted = read_id(request.GET.get("id", ""))
    if wanted is not None:
        return redirect("portal:call", id=wanted)
    if request.GET.get("id"):
        messages.error(request, "That is no call’s id.")
    arm, workload = request.GET.get("arm", ""), request.GET.get("workload", "")
    calls = Call.objects.all()
    if arm in set(Arm):
        calls = calls.filter(arm=arm)
    names = {str(key): name for key, name in Workload.objects.values_list("id", "name")}
    if workload in names:
        calls = calls.filter(workload_id=workload)
    before = request.GET.get("before", "")
    found = newest_first(calls, before=before)
    rows = [(call, names.get(str(call.workload_id), "")) for call in found.rows]
    return show(
        request,
        "calls.html",
        rows=rows,
        next=found.next,
        before=before,
        arms=list(Arm),
        arm=arm,
        workloads=names.items(),
        workload=workload,
    )


@page()
def call_page(request: PortalRequest, id: UUID) -> HttpResponse:
    """One call's facts; its bodies open on demand."""
    return _show_call(request, _call(id))


@action(Right.READ_BODIES)
def open_call_bodies(request: PortalRequest, id: UUID) -> HttpResponse:
    """The same with the bodies open: a POST, since that somebody read them is recorded."""
    call = _call(id)
    bodies = open_call(call, actor=request.member.actor, now=utc_now())
    return _show_call(request, call, bodies=bodies, opened=True)


def read_id(typed: str) -> UUID | None:
    """An id as somebody pasted it; None where it is none."""
    try:
        return UUID(typed.strip())
    except ValueError:
        return None


def _call(id: UUID) -> Call:
    found: Call = get_object_or_404(Call.objects.all(), id=id)
    return found


def _show_call(request: PortalRequest, call: Call, **more: Any) -> HttpResponse:
    return show(
        request,
        "call.html",
        call=call,
        workload=Workload.objects.filter(id=call.workload_id).first() if call.workload_id else None,
        key=ApiKey.objects.filter(id=call.key_id).first(),
        credential=ProviderCredential.objects.filter(id__in=[call.credential_id]).first(),
        audits=Audit.objects.filter(call_id=call.id).order_by("call_at"),
        **more,
    )
