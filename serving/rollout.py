"""Moves a workload's traffic to its certified student a step at a time, on audits, and back when they speak against it.

States: shadow → canary → ramping → full; any → held (a person, until resumed) · rolled_back (audits, or a person) ·
superseded (a newer student begins). Every step is compare-and-set with its event; what counts is in `Audit`, so that a
decision can be made again from rows.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Q

from ingestion.models import Workload
from serving.certify_adapter import issue_certificate
from serving.core import ramp
from serving.deploy import drain
from serving.models import Audit, Certificate, Deployment, Rollout
from tenants.events import record_event
from tenants.models import Tenant
from tenants.scope import acting_for
from training.models import Adapter

State = Rollout.State

OVERTAKEN = "a newer student takes its place"
PROMISE_LOST = "no threshold keeps the promise as it stands now"


@dataclass(frozen=True, slots=True)
class Tally:
    """What the audits of a rollout add up to. `low` and `high` are the confidence sequence of the risk."""

    accepted: int
    differing: int
    step_accepted: int
    step_differing: int
    waiting: int  # claimed and not done yet
    asked: int  # shadow audits, whether or not the gate accepted
    coverage: float  # share of shadow audits that the gate accepted
    log_e: float
    low: float
    high: float

    @property
    def agreement(self) -> float:
        """Share of audited answers that agree with the teacher's."""
        return 1 - self.differing / self.accepted if self.accepted else 0.0


def start_rollouts(tenant_id: UUID, *, now: datetime) -> int:
    """Put each workload's newest accepted adapter that is live into shadow; those it overtakes are retired.

    Where a rollout is open for an older adapter, the newer one supersedes it if that is at full and the newer one's
    certificate covers more, or if that is held; else it waits. A workload has one rollout, so while the new one is in
    shadow the teacher answers what the old one did. Safe to run twice.
    """
    with acting_for(tenant_id):
        never = Deployment.objects.exclude(id__in=Rollout.objects.values("deployment_id"))
        waiting = never.filter(
            status=Deployment.Status.LIVE,
            adapter__status=Adapter.Status.ACCEPTED,
            adapter__in=Certificate.objects.filter(certified=True).values("adapter"),
        )
        ordered = waiting.select_related("adapter__workload").order_by("adapter__workload", "-adapter__created_at")
        by_workload = [list(rivals) for _, rivals in groupby(ordered, key=lambda one: one.adapter.workload_id)]
    return sum(_start_newest(tenant_id, rivals, now) for rivals in by_workload)


def _start_newest(tenant_id: UUID, waiting: list[Deployment], now: datetime) -> bool:
    newest, *older = waiting
    try:
        with acting_for(tenant_id):
            workload = newest.adapter.workload
            current = _open_rollout(workload)
            if current is not None and current.deployment.adapter.created_at > newest.adapter.created_at:
                _retire_all(waiting, OVERTAKEN, now)
                return False
            certificate = _promised(
                Certificate.objects.filter(adapter=newest.adapter).latest("issued_at"), workload, now
            )
            if not certificate.certified:
                _retire_all([newest], PROMISE_LOST, now)
                return False
            was_held = current is not None and current.state == State.HELD
            if current is not None and not _supersede(current, certificate, now):
                return False
            Rollout.objects.create(
                workload=workload,
                deployment=newest,
                certificate=certificate,
                approved_at=now if _is_automatic(workload) and not was_held else None,
                created_at=now,
                step_at=now,
            )
            _retire_all(older, OVERTAKEN, now)
            return True
    except IntegrityError:  # another worker was first
        return False


def _open_rollout(workload: Workload) -> Rollout | None:
    still = Rollout.objects.filter(workload=workload).exclude(state__in=Rollout.OVER)
    return still.select_related("certificate", "deployment__adapter").first()


def _supersede(current: Rollout, certificate: Certificate, now: datetime) -> bool:
    """End the open rollout for the newer student's sake: one that is held, or is at full and covers less. One that is
    on its way up goes first, or a workload that grows would never arrive."""
    covers_more = current.state == State.FULL and certificate.coverage > current.certificate.coverage
    if current.state != State.HELD and not covers_more:
        return False
    return _end(current, State.SUPERSEDED, reason=OVERTAKEN, actor="system", now=now)


def _retire_all(deployments: list[Deployment], reason: str, now: datetime) -> None:
    for deployment in deployments:
        deployment.adapter.advance(Adapter.Status.RETIRED, now, reason=reason)
        drain(deployment, now=now)


def _is_automatic(workload: Workload) -> bool:
    if workload.approval == Workload.Approval.TENANT:
        return bool(Tenant.objects.get().approval == Tenant.Approval.AUTOMATIC)
    return workload.approval == Workload.Approval.AUTOMATIC


def rollouts_due(tenant_id: UUID) -> list[UUID]:
    """The tenant's rollouts that audits may move."""
    with acting_for(tenant_id):
        still = [*Rollout.OVER, State.HELD]
        return list(Rollout.objects.exclude(state__in=still).values_list("id", flat=True))


def move(tenant_id: UUID, rollout_id: UUID, *, now: datetime) -> ramp.Decision:
    """Decide a rollout's next step from its audits, and take it."""
    with acting_for(tenant_id):
        rollout = Rollout.objects.select_related("workload", "certificate", "deployment__adapter").get(id=rollout_id)
        if rollout.state in Rollout.OVER:
            return ramp.Hold("over", 0)
        if not _keeps_promise(rollout, now):
            roll_back(rollout, reason=PROMISE_LOST, actor="system", now=now)
            return ramp.Hold("rolled back", 0)
        counted = tally(rollout)
        certificate = rollout.certificate
        decision = ramp.decide(
            ramp.State(rollout.state),
            share=rollout.share,
            step=ramp.Audits(counted.step_differing, counted.step_accepted),
            life=ramp.Audits(counted.differing, counted.accepted),
            alpha=certificate.alpha,
            delta=certificate.delta,
        )
        match decision:
            case ramp.RollBack(log_e=log_e):
                facts = {"differing": counted.differing, "audits": counted.accepted, "log_e": log_e}
                roll_back(rollout, reason="audits refute the promise", actor="system", now=now, **facts)
            case ramp.Advance(to_state=to, share=share) if rollout.approved_at is not None:
                rollout.advance(
                    str(to), now, share=share, audits=counted.step_accepted, differing=counted.step_differing
                )
            case ramp.Advance():
                return ramp.Hold("waits for approval", 0)
            case ramp.Hold():
                pass
        return decision


def _keeps_promise(rollout: Rollout, now: datetime) -> bool:
    """Whether the certificate is on the promise as it stands, or one that is could be issued in its place."""
    certificate = _promised(rollout.certificate, rollout.workload, now)
    if certificate.certified and certificate != rollout.certificate:
        Rollout.objects.filter(id=rollout.id).update(certificate=certificate)
        rollout.certificate = certificate
    return bool(certificate.certified)


def _promised(kept: Certificate, workload: Workload, now: datetime) -> Certificate:
    """The certificate, if it is on the workload's promise as it stands; where the tenant changed that, a fresh one."""
    if (kept.alpha, kept.delta, kept.promise) == (workload.alpha, workload.delta, workload.promise):
        return kept
    return issue_certificate(kept.evaluation, workload, now=now)


def tally(rollout: Rollout) -> Tally:
    """Count a rollout's audits. For the tenant in force.

    Per answer, what counts is every audit whose answer the gate accepts. Per call, the shadow audits alone: they are a
    random draw of eligible calls, and a deferred one counts as agreeing.
    """
    done = Audit.objects.filter(rollout=rollout, status=Audit.Status.DONE)
    shadow = done.filter(kind=Audit.Kind.SHADOW)
    per_call = rollout.certificate.promise == Workload.Promise.PER_CALL
    life = shadow if per_call else done.filter(accepted=True)
    bad = Q(accepted=True, differs=True)
    life = life.filter(call_at__gte=rollout.certificate.issued_at)  # earlier ones passed another gate
    step = life.filter(call_at__gte=rollout.step_at)
    accepted, differing = life.count(), life.filter(bad).count()
    asked = shadow.count()
    alpha, delta = rollout.certificate.alpha, rollout.certificate.delta
    low, high = ramp.confidence_sequence(differing, accepted, delta)
    return Tally(
        accepted=accepted,
        differing=differing,
        step_accepted=step.count(),
        step_differing=step.filter(bad).count(),
        waiting=Audit.objects.filter(rollout=rollout, status=Audit.Status.CLAIMED).count(),
        asked=asked,
        coverage=shadow.filter(accepted=True).count() / asked if asked else 0.0,
        log_e=ramp.log_e_value(differing, accepted, alpha),
        low=low,
        high=high,
    )


def roll_back(rollout: Rollout, *, reason: str, actor: str, now: datetime, **facts: object) -> bool:
    """Give all of a workload's traffic back to the teacher, and take the adapter off. For the tenant in force."""
    return _end(rollout, State.ROLLED_BACK, reason=reason, actor=actor, now=now, **facts)


def _end(rollout: Rollout, to: str, *, reason: str, actor: str, now: datetime, **facts: object) -> bool:
    ended = rollout.advance(to, now, share=0.0, actor=actor, reason=reason, **facts)
    if ended:
        _retire_all([rollout.deployment], reason, now)
    return ended


def hold(rollout: Rollout, *, actor: str, reason: str, now: datetime) -> bool:
    """The teacher answers everything until somebody resumes; the share is kept for then."""
    if rollout.state in (State.HELD, *Rollout.OVER):
        return False
    return rollout.advance(State.HELD, now, share=rollout.share, actor=actor, reason=reason)


def resume(rollout: Rollout, *, actor: str, now: datetime) -> bool:
    """Go on where `hold` stopped."""
    if rollout.state != State.HELD:
        return False
    return rollout.advance(rollout.held_from or State.SHADOW, now, share=rollout.share, actor=actor)


def back_to_teacher(rollout: Rollout, *, actor: str, reason: str, now: datetime) -> bool:
    """A person's roll-back: for good, for this adapter."""
    if rollout.state in Rollout.OVER:
        return False
    return roll_back(rollout, reason=reason, actor=actor, now=now)


def approve(rollout: Rollout, *, actor: str, now: datetime) -> bool:
    """Let a rollout go beyond shadow. False if that was said before."""
    approved = Rollout.objects.filter(id=rollout.id, approved_at=None).update(approved_at=now)
    if approved:
        record_event("rollout.approved", now=now, actor=actor, subject_id=rollout.id)
    return bool(approved)
