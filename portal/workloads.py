"""Workloads: the list, one with its pipeline and quality, its promise, and a person's hand on its rollout."""

from collections.abc import Callable
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django_htmx.http import HttpResponseClientRefresh

from ingestion.models import Workload
from ingestion.promises import UnableToPromise, state_promise
from ingestion.sampling import UnableToSample, state_log_share
from portal.access import PortalRequest, action, page, show, utc_now
from portal.bodies import open_examples
from portal.charts import draw_curve, draw_risk
from portal.figures import NOTHING, agreement_of, looks_at, measure_spend, open_rollouts
from portal.forms import LoggingForm, PromiseForm, ReasonForm
from portal.pipeline import Pipeline, read_pipeline
from serving.models import Rollout
from serving.rollout import approve, back_to_teacher, hold, resume
from tenants.core.roles import Right


@page()
def workload_list(request: PortalRequest) -> HttpResponse:
    """All workloads with their volume, spend and verdict."""
    spend, rollouts = measure_spend(utc_now()), open_rollouts()
    found = [(one, spend.get(one.id, NOTHING), rollouts.get(one.id)) for one in Workload.objects.order_by("-found_at")]
    return show(request, "workloads.html", workloads=found, unassigned=spend.get(None))


@page()
def workload_page(request: PortalRequest, id: UUID) -> HttpResponse:
    """One workload."""
    return _show_workload(request, _workload(id))


@page()
def workload_pipeline(request: PortalRequest, id: UUID) -> HttpResponse:
    """The pipeline alone, every few seconds; where the rest of the page no longer fits it, the whole page again."""
    pipeline = read_pipeline(workload := _workload(id))
    if request.GET.get("seen", pipeline.state) != pipeline.state:
        return HttpResponseClientRefresh()
    return show(request, "_pipeline.html", workload=workload, pipeline=pipeline)


@action(Right.READ_BODIES)
def workload_examples(request: PortalRequest, id: UUID) -> HttpResponse:
    """The last few calls of each arm, opened: a POST, since that somebody read them is recorded."""
    workload = _workload(id)
    examples = open_examples(workload, actor=request.member.actor, now=utc_now())
    template = "_examples.html" if request.headers.get("HX-Request") else "examples.html"
    return show(request, template, workload=workload, examples=examples)


@action(Right.STEER)
def state_workload_promise(request: PortalRequest, id: UUID) -> HttpResponse:
    """Change α, δ, what they are of, and who approves."""
    workload, form = _workload(id), PromiseForm(request.POST)
    if not form.is_valid():
        return _show_workload(request, workload, form=form, status=400)
    try:
        state_promise(workload, **form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToPromise as error:
        form.add_error(None, f"{error}")
        return _show_workload(request, workload, form=form, status=400)
    messages.success(request, "The promise is stated. Certificates from now on hold to it.")
    return redirect("portal:workload", id=workload.id)


@action(Right.MANAGE_TENANT)
def state_workload_logging(request: PortalRequest, id: UUID) -> HttpResponse:
    """Change of which share of the calls the content is kept."""
    workload, form = _workload(id), LoggingForm(request.POST)
    if not form.is_valid():
        return _show_workload(request, workload, logging=form, status=400)
    try:
        state_log_share(workload, **form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToSample as error:
        form.add_error(None, f"{error}")
        return _show_workload(request, workload, logging=form, status=400)
    messages.success(request, "Kept from now on.")
    return redirect("portal:workload", id=workload.id)


@action(Right.STEER)
def approve_rollout(request: PortalRequest, id: UUID) -> HttpResponse:
    """Let it go beyond shadow."""
    return _steer(
        request, id, lambda rollout, _: approve(rollout, actor=request.member.actor, now=utc_now()), "Approved."
    )


@action(Right.STEER)
def resume_rollout(request: PortalRequest, id: UUID) -> HttpResponse:
    """Go on where it was held."""
    return _steer(
        request, id, lambda rollout, _: resume(rollout, actor=request.member.actor, now=utc_now()), "Resumed."
    )


@action(Right.STOP)
def hold_rollout(request: PortalRequest, id: UUID) -> HttpResponse:
    """The teacher answers everything until somebody resumes."""
    return _steer(
        request,
        id,
        lambda rollout, reason: hold(rollout, actor=request.member.actor, reason=reason, now=utc_now()),
        "On hold: the teacher answers everything.",
        reasoned=True,
    )


@action(Right.STOP)
def send_back_to_teacher(request: PortalRequest, id: UUID) -> HttpResponse:
    """For good, for this student."""
    return _steer(
        request,
        id,
        lambda rollout, reason: back_to_teacher(rollout, actor=request.member.actor, reason=reason, now=utc_now()),
        "All traffic is back with the teacher.",
        reasoned=True,
    )


def _steer(
    request: PortalRequest, id: UUID, move: Callable[[Rollout, str], bool], done: str, *, reasoned: bool = False
) -> HttpResponse:
    rollout: Rollout = get_object_or_404(Rollout.objects.select_related("deployment__adapter"), id=id)
    form = ReasonForm(request.POST)
    if reasoned and not form.is_valid():
        messages.error(request, "Say why: it goes into the event log.")
    elif move(rollout, form.cleaned_data["reason"] if reasoned else ""):
        messages.success(request, done)
    else:
        messages.error(request, "It had moved on already; nothing was changed.")
    return redirect("portal:workload", id=rollout.workload_id)


def _workload(id: UUID) -> Workload:
    found: Workload = get_object_or_404(Workload.objects.all(), id=id)
    return found


def _show_workload(
    request: PortalRequest,
    workload: Workload,
    *,
    form: PromiseForm | None = None,
    logging: LoggingForm | None = None,
    status: int = 200,
) -> HttpResponse:
    pipeline = read_pipeline(workload)
    stated = {name: getattr(workload, name) for name in ("alpha", "delta", "promise", "approval")}
    return show(
        request,
        "workload.html",
        status=status,
        workload=workload,
        pipeline=pipeline,
        spend=measure_spend(utc_now()).get(workload.id, NOTHING),
        form=form or PromiseForm(initial=stated),
        logging=logging or LoggingForm(initial={"log_share": workload.log_share}),
        **_quality(pipeline),
    )


def _quality(pipeline: Pipeline) -> dict[str, object]:
    certificate, rollout, counted = pipeline.certificate, pipeline.rollout, pipeline.tally
    curve = (
        draw_curve(certificate.curve, alpha=certificate.alpha, rows=certificate.calibration_rows)
        if certificate and certificate.curve
        else ""
    )
    looks = looks_at(rollout) if rollout else []
    return {
        "curve_chart": curve,
        "risk_chart": draw_risk(looks, alpha=rollout.certificate.alpha) if rollout and len(looks) > 1 else "",
        "agreement": agreement_of(counted.differing, counted.accepted) if counted else None,
    }
