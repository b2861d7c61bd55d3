"""Says what may be promised on an evaluation, and accepts or rejects the adapter accordingly.

Data flow: rows of a done evaluation → acceptor fitted and thresholds chosen on tuning rows → certified on calibration
rows → a certificate, with its gate if it holds, else with a reason and how many more rows are needed.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import msgspec

from ingestion.core.split import Split
from ingestion.models import Workload
from serving.core import certify
from serving.core.accept import gated_score
from serving.core.acceptor import fit_acceptor
from serving.core.gates import Acceptor, Gate
from serving.evaluate import Row, rows_of
from serving.models import Certificate, Evaluation
from tenants.events import record_event
from tenants.scope import acting_for
from training.models import Adapter

NOVELTY_EPSILON = 0.02  # docs/adr/0010-two-in-a-hundred-may-look-novel.md


def certificates_due(tenant_id: UUID) -> list[UUID]:
    """Done evaluations of candidates that no certificate has been issued on."""
    with acting_for(tenant_id):
        done = Evaluation.objects.filter(
            status=Evaluation.Status.DONE, deployment__adapter__status=Adapter.Status.CANDIDATE
        )
        judged = Certificate.objects.values("evaluation_id")
        return list(done.exclude(id__in=judged).values_list("id", flat=True))


def certify_adapter(tenant_id: UUID, evaluation_id: UUID, *, now: datetime) -> Certificate:
    """Issue the certificate on an evaluation and accept or reject its adapter, in one transaction. Safe to run twice:
    the second is given the first's certificate."""
    with acting_for(tenant_id):
        evaluation = Evaluation.objects.select_related("deployment").get(id=evaluation_id)
        locked = Adapter.objects.select_for_update(of=("self",)).select_related("workload")
        adapter = locked.get(id=evaluation.deployment.adapter_id)
        if issued := Certificate.objects.filter(evaluation=evaluation).order_by("issued_at").first():
            return issued  # another worker was first
        certificate = issue_certificate(evaluation, adapter.workload, now=now)
        better = evaluation.arms["student"] > evaluation.arms["base"]
        if certificate.certified and not better:
            refuse(certificate, "the student agrees with the teacher no more often than the untrained base does")
        to = Adapter.Status.ACCEPTED if certificate.certified else Adapter.Status.REJECTED
        adapter.advance(to, now, certificate=str(certificate.id), reason=certificate.reason)
        return certificate


def issue_certificate(evaluation: Evaluation, workload: Workload, *, now: datetime) -> Certificate:
    """Certify an evaluation's rows for the workload's promise as it stands. For the tenant in force."""
    rows = rows_of(evaluation)
    outcome, acceptor = certify_rows(rows, alpha=workload.alpha, delta=workload.delta, promise=workload.promise)
    certificate = Certificate(
        evaluation=evaluation,
        adapter_id=evaluation.deployment.adapter_id,
        alpha=workload.alpha,
        delta=workload.delta,
        promise=workload.promise,
        certified=isinstance(outcome, certify.Certified),
        calibration_rows=outcome.n_calibration,
        curve=[asdict(point) for point in outcome.curve],
        issued_at=now,
    )
    match outcome:
        case certify.Certified():
            gate = Gate(acceptor=acceptor, threshold=outcome.threshold, novelty_epsilon=NOVELTY_EPSILON)
            certificate.gate = msgspec.to_builtins(gate)
            certificate.threshold, certificate.coverage = outcome.threshold, outcome.coverage
            certificate.accepted, certificate.differing = outcome.accepted, round(outcome.differing)
            certificate.upper_bound = outcome.upper_bound
        case certify.NotCertified():
            certificate.reason, certificate.more_rows_needed = outcome.reason[:300], outcome.more_rows_needed
    certificate.save(force_insert=True)
    record_event(
        "certificate.issued" if certificate.certified else "certificate.refused",
        now=now,
        subject_id=certificate.id,
        alpha=certificate.alpha,
        delta=certificate.delta,
        coverage=certificate.coverage,
        more_rows_needed=certificate.more_rows_needed,
    )
    return certificate


def certify_rows(
    rows: Sequence[Row], *, alpha: float, delta: float, promise: str
) -> tuple[certify.Certificate, Acceptor]:
    """Fit on the tuning rows, certify on the calibration rows; the acceptor goes into the gate."""
    tuning = [row for row in rows if row.split == Split.TUNING]
    calibration = [row for row in rows if row.split == Split.CALIBRATION]
    acceptor = fit_acceptor([row.evidence for row in tuning], [not row.differs for row in tuning])
    mode = certify.Mode(promise)
    grid = certify.choose_grid(
        _scores(tuning, acceptor),
        [float(row.differs) for row in tuning],
        n_calibration=len(calibration),
        alpha=alpha,
        delta=delta,
        mode=mode,
    )
    certified = certify.certify_per_answer if mode is certify.Mode.PER_ANSWER else certify.certify_per_call
    outcome = certified(
        _scores(calibration, acceptor),
        [float(row.differs) for row in calibration],
        grid=grid,
        alpha=alpha,
        delta=delta,
    )
    return outcome, acceptor


def refuse(certificate: Certificate, reason: str) -> None:
    """Withdraw what the numbers alone would have allowed."""
    certificate.certified, certificate.reason = False, reason
    certificate.save(update_fields=["certified", "reason"])


def _scores(rows: Sequence[Row], acceptor: Acceptor) -> list[float]:
    """What `accept()` would compare with the threshold, row by row."""
    return [
        gated_score(
            "answered" if row.answered else None, row.evidence, acceptor=acceptor, novelty_epsilon=NOVELTY_EPSILON
        )
        for row in rows
    ]
