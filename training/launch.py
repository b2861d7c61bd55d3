"""Queues, claims and carries out training runs: from a frozen dataset to a candidate adapter in the artifact store.

The row is the truth. A run is claimed with a new fencing token and a lease that heartbeats prolong; a worker that lost
its lease cannot write any more, and the next holder goes on from the last checkpoint.
"""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import IntegrityError

from ingestion.core.calls import Kind
from ingestion.core.split import Split
from ingestion.curate import LONGEST_ANSWER, LONGEST_QUERY, open_example
from ingestion.erase import await_erasures, calls_to_erase
from ingestion.models import Dataset, Example
from tenants.core.clock import Clock
from tenants.events import record_event
from tenants.models import tenant_ids
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from training.artifacts import UnableToStore, drop_artifact, put_artifact
from training.lora.artifact import Manifest, read_manifest
from training.lora.spec import RunSpec
from training.models import Adapter, TrainingRun
from training.runner import TrainingStopped, UnableToTrain, run_trainer

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # claims of a run: its workers were lost
STORE_TRIES = 6  # with twice the pause between each two
MOST_RUNS = 4  # of one dataset and rung
MAX_CRASHES = 2  # from this attempt on, a trainer that breaks has failed
PROMPT_TOKENS = 72  # around a query and its answer, at most


def queue_runs(tenant_id: UUID, *, now: datetime) -> int:
    """Queue a run for each workload's newest dataset that has had none. Safe to run twice at once."""
    queued = 0
    with acting_for(tenant_id):
        tried = set(TrainingRun.objects.values_list("dataset_id", flat=True))
        newest = Dataset.objects.order_by("workload_id", "-version")
        datasets = list(newest.distinct("workload_id"))
    for dataset in datasets:
        if dataset.id not in tried:
            queued += queue_run(dataset, rung=_rung_for(dataset), now=now) is not None
    return queued


def queue_run(dataset: Dataset, *, rung: str, now: datetime, actor: str = "system") -> TrainingRun | None:
    """Queue one run; None if one of this dataset and rung is open already."""
    try:
        with acting_for(dataset.tenant_id):
            run = TrainingRun.objects.create(dataset=dataset, rung=rung, created_at=now, currency=settings.CURRENCY)
            record_event("run.queued", now=now, actor=actor, subject_id=run.id, dataset=str(dataset.id), rung=rung)
            return run
    except IntegrityError:
        return None


def retry_run(run: TrainingRun, *, actor: str, now: datetime) -> TrainingRun | None:
    """Queue a failed or cancelled run's dataset and rung again.

    None if it is neither, or one of them is open, or has had its tries, or its workload has a newer dataset or is not
    suitable any more.
    """
    if run.status not in TrainingRun.TO_RETRY:
        return None
    with acting_for(run.tenant_id):
        dataset = Dataset.objects.select_related("workload").get(id=run.dataset_id)
        newest = Dataset.objects.filter(workload_id=dataset.workload_id).latest("version")
        tried = TrainingRun.objects.filter(dataset=dataset, rung=run.rung).count()
    if dataset.id != newest.id or dataset.workload.verdict != "suitable" or tried >= MOST_RUNS:
        return None
    return queue_run(dataset, rung=run.rung, actor=actor, now=now)


def runs_due(now: datetime) -> list[tuple[UUID, UUID]]:
    """(tenant, run) of every run that is queued, or whose holder has not been heard of since its lease ran out.

    Tenants take turns: first come those with the fewest trainers at work, then each one's second run, and so on.
    """
    active, turns = set(tenant_ids()), Counter[UUID]()
    running, due = TrainingRun.across_tenants.filter(status=TrainingRun.Status.RUNNING), list[tuple[int, UUID, UUID]]()
    turns.update(running.filter(lease_until__gte=now).values_list("tenant_id", flat=True))
    free = TrainingRun.across_tenants.filter(status=TrainingRun.Status.QUEUED) | running.filter(lease_until__lt=now)
    for tenant, run in free.order_by("created_at", "id").values_list("tenant_id", "id"):
        if tenant in active:
            due.append((turns[tenant], tenant, run))
            turns[tenant] += 1
    return [(tenant, run) for _, tenant, run in sorted(due, key=lambda each: each[0])]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim of a run. All of its writes go under its token, and each says what the run has cost so far."""

    run: TrainingRun
    token: int
    number: int
    started: datetime
    clock: Clock

    def beat(self, **facts: Any) -> bool:
        """Prolong the lease. False: stop."""
        return self._write(
            lambda now: self.run.beat(now, token=self.token, lease=_lease(), **facts, **self._spent(now))
        )

    def release(self, error: str) -> bool:
        """Leave the run to another attempt."""
        return self._write(lambda now: self.run.release(now, token=self.token, error=error, **self._spent(now)))

    def put_back(self) -> bool:
        """Leave the run as if it had not been claimed, but for what it has cost."""
        return self._write(
            lambda now: self.run.release(now, token=self.token, attempts=self.number - 1, **self._spent(now))
        )

    def finish(self, to: str, **facts: Any) -> bool:
        """Close the run. False if it is another worker's by now."""
        return self._write(lambda now: self.run.finish(now, token=self.token, to=to, **facts, **self._spent(now)))

    def _write(self, write: Callable[[datetime], bool]) -> bool:
        with acting_for(self.run.tenant_id):
            return write(self.clock())

    def _spent(self, now: datetime) -> dict[str, Any]:
        seconds = self.run.seconds + (now - self.started).total_seconds()
        cost = (Decimal(str(seconds)) * settings.TRAINER_HOURLY_COST / 3600).quantize(Decimal("1e-10"))
        return {"seconds": seconds, "cost": cost}


def carry_out(tenant_id: UUID, run_id: UUID, *, clock: Clock) -> bool:
    """Claim a run and carry it out; False if another worker has it. Failures are recorded on the run."""
    folder = Path(settings.RUNS_DIR) / str(run_id)
    attempt = _claim(tenant_id, run_id, clock)
    if attempt is None:
        return False
    if attempt.number > MAX_ATTEMPTS:
        attempt.finish(TrainingRun.Status.FAILED, error="given up after three attempts")
        shutil.rmtree(folder, ignore_errors=True)
        return False
    try:
        _carry_out(attempt, folder)
    except TrainingStopped:
        _close_stopped(attempt)
    except UnableToTrain as error:
        _note_failure(attempt, error)
    finally:
        _tidy(attempt.run, folder)
    return True


def _claim(tenant_id: UUID, run_id: UUID, clock: Clock) -> Attempt | None:
    now = clock()
    with acting_for(tenant_id):
        run = TrainingRun.objects.select_related("dataset").get(id=run_id)
        token = run.claim(now, lease=_lease())
    return None if token is None else Attempt(run, token, run.attempts + 1, now, clock)


def _lease() -> timedelta:
    return timedelta(seconds=settings.LEASE_SECONDS)


def _carry_out(attempt: Attempt, folder: Path) -> None:
    run, every = attempt.run, settings.LEASE_SECONDS / 4
    spec = _write_spec(run, attempt.token, folder)

    def beat(progress: Mapping[str, Any]) -> bool:
        if progress.get("step"):  # the trainer has read the rows, and the next attempt exports them anew
            Path(spec.data).unlink(missing_ok=True)
        return attempt.beat(progress=progress)

    metrics = run_trainer(folder / f"spec-{attempt.token}.json", every=every, on_beat=beat)
    manifest = read_manifest(Path(spec.out))
    key = f"{artifact_prefix(run)}-{attempt.token}"  # no attempt writes over another's
    checksum = _store(Path(spec.out), key=key, every=every, on_beat=attempt.beat)
    with acting_for(run.tenant_id):
        closed = attempt.finish(TrainingRun.Status.SUCCEEDED, metrics=metrics, error="")
        if closed:
            _make_adapter(run, spec, manifest, key=key, checksum=checksum, now=attempt.clock())
    if not closed:
        _drop_quietly(key)


def _store(directory: Path, *, key: str, every: float, on_beat: Callable[[], bool]) -> str:
    """Put the artifact into the store while the lease is kept; gives its checksum.

    A store that is away is tried for some minutes more: hours of training must not be lost to a restart of it.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        for pause in (*(2**n * every for n in range(STORE_TRIES - 1)), None):
            storing = pool.submit(put_artifact, directory, key=key)
            held = _keep_while(storing, every=every, on_beat=on_beat)
            failure = storing.exception()
            if failure is None or not isinstance(failure, UnableToStore) or not held or pause is None:
                break
            held = _keep_while(pool.submit(time.sleep, pause), every=every, on_beat=on_beat)
    if not held:
        _drop_quietly(key)
        raise TrainingStopped
    try:
        return storing.result()
    except UnableToStore as error:
        raise UnableToTrain(str(error), permanent=False) from error


def _keep_while(work: Future[Any], *, every: float, on_beat: Callable[[], bool]) -> bool:
    """Keep the lease until the work is done. False: it is lost."""
    held = True
    while not wait([work], timeout=every).done:
        held = held and on_beat()
    return held


def _drop_quietly(key: str) -> None:
    try:
        drop_artifact(key=key)
    except UnableToStore:
        log.warning("artifact %s is of no use and still in the store", key)


def _tidy(run: TrainingRun, folder: Path) -> None:
    """The tenant's text lies on this disk only while the run is open."""
    with acting_for(run.tenant_id):
        is_open = TrainingRun.objects.filter(id=run.id, status__in=TrainingRun.OPEN).exists()
    if not is_open:
        shutil.rmtree(folder, ignore_errors=True)


def _write_spec(run: TrainingRun, token: int, folder: Path) -> RunSpec:
    """The run's folder is private to this user: it holds the tenant's text while the trainer reads it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = folder / "data.jsonl"  # one name for all attempts, or a restarted run would not know its checkpoints
    _export(run.dataset, folder / f"data-{token}.unfinished")
    (folder / f"data-{token}.unfinished").replace(data)
    dataset = run.dataset
    spec = RunSpec(
        rung=run.rung,
        kind=Kind(dataset.kind),
        encoder_model=settings.ENCODER_MODEL,
        base_model=settings.BASE_MODEL if run.rung == "lora" else "",
        data=str(data),
        out=str(folder / f"artifact-{token}"),
        checkpoint_dir=str(folder / "checkpoints"),
        adapter=adapter_name(run),
        labels=tuple(sorted(dataset.labels)),
        modules=settings.LORA_MODULES,
        rank=settings.LORA_RANK,
        alpha=2.0 * settings.LORA_RANK,
        lr=settings.LORA_LEARNING_RATE,
        epochs=settings.LORA_EPOCHS,
        batch=settings.LORA_BATCH,
        max_tokens=LONGEST_QUERY + LONGEST_ANSWER + PROMPT_TOKENS,  # mostly under one a character; more is left out
        fencing_token=token,
        parent_pid=os.getpid(),
        dataset_hash=dataset.content_hash,
        policy=", ".join(sorted(dataset.stances)),
        licence=settings.BASE_MODEL_LICENCE if run.rung == "lora" else "",
    )
    (folder / f"spec-{token}.json").write_bytes(msgspec.json.encode(spec))
    return spec


def _export(dataset: Dataset, path: Path) -> None:
    splits = [Split.TRAIN, Split.TUNING]  # calibration never comes near the trainer
    with acting_for(dataset.tenant_id):
        await_erasures()  # one that follows finds a run that had begun before it; so nothing but reading is done here
        data_key = data_key_in_force()
        wanted = Example.objects.filter(dataset=dataset, split__in=splits).exclude(call_id__in=calls_to_erase())
        examples = list(wanted.order_by("at", "id"))
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
        for example in examples:
            query, answer = open_example(example, data_key)
            if answer:
                out.write(msgspec.json.encode({"query": query, "answer": answer, "split": example.split}) + b"\n")


def adapter_name(run: TrainingRun) -> str:
    """Immutable and never used again: replicas cache by name. It tells a stranger who sees it nothing of the task."""
    return f"w{run.dataset.workload_id.hex[:12]}-v{run.dataset.version}-{run.rung}-{run.id.hex[:12]}"


def artifact_prefix(run: TrainingRun) -> str:
    """What the keys of all artifacts of a run begin with; the attempt's token follows."""
    return f"{run.tenant_id}/{adapter_name(run)}"


def _make_adapter(
    run: TrainingRun, spec: RunSpec, manifest: Manifest, *, key: str, checksum: str, now: datetime
) -> Adapter:
    adapter = Adapter.objects.create(
        run=run,
        workload=run.dataset.workload,
        dataset=run.dataset,
        name=spec.adapter,
        rung=run.rung,
        artifact_key=key,
        checksum=checksum,
        card=msgspec.to_builtins(manifest),
        created_at=now,
    )
    record_event("adapter.candidate", now=now, subject_id=adapter.id, name=adapter.name, checksum=checksum)
    return adapter


def _close_stopped(attempt: Attempt) -> None:
    """Cancelled by a person, put off with its tenant, or taken over by another worker, whose business it then is."""
    with acting_for(attempt.run.tenant_id):
        if TrainingRun.objects.filter(id=attempt.run.id, cancel_requested=True).exists():
            attempt.finish(TrainingRun.Status.CANCELLED)
        else:
            attempt.put_back()  # nothing happens to what is another's


def _note_failure(attempt: Attempt, error: UnableToTrain) -> None:
    """What may do better another time is left to the next claim, once."""
    log.warning("attempt %d of training run %s failed", attempt.number, attempt.run.id)
    if error.permanent or attempt.number >= MAX_CRASHES:
        attempt.finish(TrainingRun.Status.FAILED, error=str(error))
    else:
        attempt.release(str(error))


def _rung_for(dataset: Dataset) -> str:
    """The preferred rung where it can do the kind: a head knows labels only."""
    return settings.PREFERRED_RUNG if dataset.kind == Kind.LABEL else "lora"
