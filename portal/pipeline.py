"""A workload's pipeline as it stands, as a row of stages that a page can draw: read-only, for the tenant in force."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ingestion.models import Dataset, Workload
from serving.models import Certificate, Evaluation, Rollout
from serving.rollout import Tally, tally
from training.models import Adapter, TrainingRun

RUNGS = {"lora": "LoRA", "head": "linear head"}


class Progress(StrEnum):
    """How far a stage is."""

    WAITING = "waiting"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Meter:
    """A share in [0, 1] with what it is of."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the pipeline, in words."""

    title: str
    progress: Progress
    headline: str
    at: datetime | None = None
    lines: tuple[str, ...] = ()
    meters: tuple[Meter, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The newest row of each stage, and the stages drawn from them."""

    dataset: Dataset | None
    run: TrainingRun | None
    adapter: Adapter | None
    evaluation: Evaluation | None
    certificate: Certificate | None
    rollout: Rollout | None
    tally: Tally | None
    stages: tuple[Stage, ...]

    @property
    def state(self) -> str:
        """One word that changes when a page that shows this is out of date."""
        rollout = self.rollout
        held = [self.dataset, self.run, self.evaluation, self.certificate]
        where = f"{rollout.id}-{rollout.state}-{rollout.share}-{bool(rollout.approved_at)}" if rollout else "none"
        return "-".join([str(sum(row is not None for row in held)), where])


def read_pipeline(workload: Workload) -> Pipeline:
    """Where a workload is on its way from traffic to a student that answers."""
    dataset = workload.datasets.order_by("-version").first()
    run = TrainingRun.objects.filter(dataset__workload=workload).order_by("-created_at").first()
    adapter = workload.adapters.order_by("-created_at").first()
    evaluation = (
        Evaluation.objects.filter(deployment__adapter=adapter).order_by("-created_at").defer("rows").first()
        if adapter
        else None
    )
    certificate = adapter.certificates.order_by("-issued_at").first() if adapter else None
    rollout = workload.rollouts.select_related("certificate", "deployment__adapter").order_by("-created_at").first()
    counted = tally(rollout) if rollout else None
    stages = (
        _discovered(workload),
        _dataset(dataset, workload),
        _run(run),
        _evaluation(evaluation),
        _certificate(certificate),
        _rollout(rollout, counted),
    )
    return Pipeline(dataset, run, adapter, evaluation, certificate, rollout, counted, stages)


def _discovered(workload: Workload) -> Stage:
    lines = [str(reason) for reason in workload.verdict_reasons]
    if workload.verdict == "unsuitable":
        return Stage("Discovered", Progress.FAILED, "Stays with the teacher", workload.found_at, tuple(lines))
    headline = "Suitable for a student" if workload.verdict == "suitable" else "Gathering calls"
    progress = Progress.DONE if workload.verdict == "suitable" else Progress.ACTIVE
    return Stage("Discovered", progress, headline, workload.found_at, tuple(lines))


def _dataset(dataset: Dataset | None, workload: Workload) -> Stage:
    if dataset is None:
        out = _listed(workload.left_out)
        last = (f"Too few pairs were usable the last time; left out: {out}",) if out else ()
        return Stage("Dataset", Progress.WAITING, "Frozen when enough pairs have gathered", lines=last)
    counts = ", ".join(f"{number:,} {split}" for split, number in dataset.counts.items())
    out = _listed(dataset.left_out)
    terms = ", ".join(f"{number:,} {_words(stance)}" for stance, number in dataset.stances.items())
    lines = (
        counts,
        f"Left out: {out}" if out else "Nothing left out",
        f"Terms: {terms}",
        f"Hash {dataset.content_hash[:12]}",
    )
    return Stage("Dataset", Progress.DONE, f"Version {dataset.version} frozen", dataset.frozen_at, lines)


def _run(run: TrainingRun | None) -> Stage:
    if run is None:
        return Stage("Training", Progress.WAITING, "Starts when a dataset is frozen")
    name = RUNGS.get(run.rung, run.rung)
    cost = f"{run.seconds:,.0f} s, {run.cost:.4f} {run.currency}"
    match run.status:
        case TrainingRun.Status.QUEUED:
            return Stage("Training", Progress.ACTIVE, f"A {name} student is queued", run.created_at)
        case TrainingRun.Status.RUNNING:
            return Stage(
                "Training",
                Progress.ACTIVE,
                f"Training a {name} student",
                run.started_at,
                _pace(run.progress),
                _steps(run.progress),
            )
        case TrainingRun.Status.SUCCEEDED:
            return Stage("Training", Progress.DONE, f"A {name} student was trained", run.finished_at, (cost,))
    return Stage(
        "Training", Progress.FAILED, f"The run {_words(run.status)}", run.finished_at, (run.error or "no reason given",)
    )


def _evaluation(evaluation: Evaluation | None) -> Stage:
    title = "Evaluation"
    if evaluation is None:
        return Stage(title, Progress.WAITING, "On the replica that will answer")
    if evaluation.status == Evaluation.Status.RUNNING:
        asked, of = (evaluation.progress.get(name, 0) for name in ("asked", "questions"))
        lines = (f"{asked} of {of} asked",) if of else ()
        return Stage(title, Progress.ACTIVE, "The student answers rows it has never seen", evaluation.created_at, lines)
    if evaluation.status == Evaluation.Status.FAILED:
        return Stage(title, Progress.FAILED, "The evaluation failed", evaluation.finished_at, (evaluation.error,))
    arms = evaluation.arms
    named = (("Teacher (the measure)", 1.0), ("Student", arms.get("student")), ("Untrained base", arms.get("base")))
    meters = tuple(Meter(name, float(value)) for name, value in named if isinstance(value, int | float))
    lines = (f"Agreement with the teacher over {arms.get('rows', 0):,} rows",)
    return Stage(title, Progress.DONE, "Three arms compared", evaluation.finished_at, lines, meters)


def _certificate(certificate: Certificate | None) -> Stage:
    title = "Certificate"
    if certificate is None:
        return Stage(title, Progress.WAITING, "A threshold that keeps the promise, or none")
    if not certificate.certified:
        more = certificate.more_rows_needed
        needed = f"About {more:,} more pairs to certify on are needed." if more else ""
        why = tuple(line for line in (certificate.reason, needed) if line)
        return Stage(title, Progress.FAILED, "Not certified", certificate.issued_at, why)
    bound = _percent(certificate.upper_bound, 2) if certificate.upper_bound is not None else "–"
    lines = (
        f"At most {_percent(certificate.alpha)} differ, {_percent(1 - certificate.delta, 0)} sure",
        f"{certificate.differing} of {certificate.accepted:,} accepted answers differed; bound {bound}",
        f"On {certificate.calibration_rows:,} rows kept for this",
    )
    meters = (Meter("Would be answered by the student", certificate.coverage),)
    return Stage(
        title,
        Progress.DONE,
        f"Certified at threshold {certificate.threshold:.3f}",
        certificate.issued_at,
        lines,
        meters,
    )


def _rollout(rollout: Rollout | None, counted: Tally | None) -> Stage:
    title = "Rollout"
    if rollout is None or counted is None:
        return Stage(title, Progress.WAITING, "Shadow, canary, ramp, full")
    band = f"{_percent(counted.low)} to {_percent(counted.high)}"
    lines = [f"{counted.accepted:,} audits, {counted.differing} differed; risk {band}"]
    if rollout.reason:
        lines.append(rollout.reason)
    if rollout.approved_at is None and rollout.state == Rollout.State.SHADOW:
        lines.append("Waits for your approval to go beyond shadow")
    progress = {
        Rollout.State.FULL: Progress.DONE,
        Rollout.State.ROLLED_BACK: Progress.FAILED,
        Rollout.State.HELD: Progress.WAITING,
    }.get(Rollout.State(rollout.state), Progress.ACTIVE)
    headline = {"rolled_back": "Back to the teacher", "held": "On hold"}.get(rollout.state, rollout.state.capitalize())
    meters = (Meter("Share of traffic offered to the student", 0.0 if rollout.state == "held" else rollout.share),)
    return Stage(title, progress, headline, rollout.step_at, tuple(lines), meters)


def _pace(progress: Mapping[str, Any]) -> tuple[str, ...]:
    loss, step, steps = progress.get("loss"), progress.get("step"), progress.get("steps")
    lines = [f"Step {step} of {steps}" if steps else "", f"Loss {loss:.3f}" if isinstance(loss, float) else ""]
    return tuple(line for line in lines if line)


def _steps(progress: Mapping[str, Any]) -> tuple[Meter, ...]:
    step, steps = progress.get("step"), progress.get("steps")
    return (Meter("Progress", min(1.0, float(step) / float(steps))),) if step and steps else ()


def _listed(left_out: Mapping[str, int]) -> str:
    largest = sorted(left_out.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{number:,} {_words(reason)}" for reason, number in largest)


def _percent(share: float, places: int = 1) -> str:
    return f"{share * 100:.{places}f}\u00a0%"


def _words(code: str) -> str:
    return code.replace("_", " ")
