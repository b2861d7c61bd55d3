"""Holds that a run is carried out once, by whoever holds its lease, and leaves a checked adapter or a clear error."""

import threading
from datetime import UTC, datetime, timedelta

import fsspec
import pytest
from botocore.exceptions import EndpointConnectionError
from django.conf import settings
from django.db import connection
from fsspec.implementations.local import LocalFileSystem

from config.models_here import ensure_models
from ingestion.curate import curate
from ingestion.discover import discover_workloads
from ingestion.erase import request_erasure
from ingestion.models import Dataset, Workload
from tenants.models import Event
from tenants.scope import acting_for
from tenants.standing import reinstate, suspend
from tests.fakes.serve import wait_for
from tests.ingestion.makers import log_calls
from tests.ingestion.test_erase import erasures_waiting
from training.artifacts import UnableToFetch, fetch_artifact
from training.launch import (
    MAX_ATTEMPTS,
    _claim,
    _write_spec,
    adapter_name,
    carry_out,
    queue_run,
    queue_runs,
    retry_run,
    runs_due,
)
from training.models import Adapter, TrainingRun

LEASE = timedelta(seconds=60)


def clock():
    return datetime.now(UTC)


class SlowStore(LocalFileSystem):
    """A store that takes nothing before the run's lease was prolonged twice."""

    protocol = "slow"
    begun: threading.Event
    beats: threading.Semaphore

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("slow://"))

    def put_file(self, source, target, **options):
        if not self.begun.is_set():
            self.begun.set()
            for _ in range(2):
                if not self.beats.acquire(timeout=30):
                    raise OSError("no heartbeat came")
        super().put_file(source, target, **options)


class ShakyStore(LocalFileSystem):
    """A store that is away a few times, as botocore tells it."""

    protocol = "shaky"
    faults = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("shaky://"))

    def put_file(self, source, target, **options):
        if ShakyStore.faults:
            ShakyStore.faults -= 1
            raise EndpointConnectionError(endpoint_url="http://store")
        super().put_file(source, target, **options)


@pytest.fixture
def dataset(company, now, settings):
    settings.MIN_PAIRS = 200
    log_calls(company.id, 260, now=now + timedelta(days=1))
    discover_workloads(company.id, now=now)
    with acting_for(company.id):
        workload = Workload.objects.get()
    return curate(company.id, workload.id, now=now)


@pytest.fixture
def run(dataset, now):
    return queue_run(dataset, rung="head", now=now)


def reread(run):
    with acting_for(run.tenant_id):
        return TrainingRun.objects.get(id=run.id)


def test_a_run_makes_an_adapter_whose_card_names_data_and_policy(company, dataset, run):
    ensure_models(tell=print)
    assert carry_out(company.id, run.id, clock=clock)
    done = reread(run)
    assert (done.status, done.error) == ("succeeded", "") and done.cost > 0
    with acting_for(company.id):
        adapter = Adapter.objects.get()
    assert adapter.status == "candidate"
    assert adapter.card["dataset_hash"] == dataset.content_hash and adapter.card["policy"] == "internal_only"
    local = fetch_artifact(key=adapter.artifact_key, checksum=adapter.checksum)
    assert (local / "head.npz").is_file()
    with pytest.raises(UnableToFetch):
        fetch_artifact(key=adapter.artifact_key, checksum="0" * 64)
    assert not (settings.RUNS_DIR / str(run.id)).exists()  # the tenant's text does not stay on the disk
    assert not carry_out(company.id, run.id, clock=clock)


def test_a_dataset_is_queued_once(company, dataset, now):
    assert queue_runs(company.id, now=now) == 1
    assert queue_runs(company.id, now=now) == 0
    assert queue_run(dataset, rung=settings.PREFERRED_RUNG, now=now) is None


def test_a_trainer_that_breaks_is_started_once_more_and_what_it_took_is_paid_for(company, run, settings):
    ensure_models(tell=print)
    encoder, settings.ENCODER_MODEL = settings.ENCODER_MODEL, "/nowhere"
    carry_out(company.id, run.id, clock=clock)
    broken = reread(run)
    assert (broken.status, broken.error) == ("running", "the trainer exited with 1") and broken.cost > 0
    assert runs_due(clock()) == [(company.id, run.id)]
    settings.ENCODER_MODEL = encoder
    carry_out(company.id, run.id, clock=clock)
    done = reread(run)
    assert (done.status, done.attempts, done.error) == ("succeeded", 2, "")
    assert done.cost > broken.cost and done.seconds > broken.seconds


def test_a_trainer_that_breaks_twice_has_failed_and_says_why_without_a_row_of_data(company, run, settings):
    settings.ENCODER_MODEL = "/nowhere"
    for _ in range(2):
        carry_out(company.id, run.id, clock=clock)
    failed = reread(run)
    assert failed.status == "failed" and failed.error and failed.cost > 0
    assert "pallet" not in failed.error
    assert not (settings.RUNS_DIR / str(run.id)).exists()
    with acting_for(company.id):
        assert Event.objects.filter(kind="run.failed").count() == 1


def test_a_trainer_that_says_what_is_wrong_is_not_started_again(company, run, settings):
    settings.LORA_EPOCHS = 0
    carry_out(company.id, run.id, clock=clock)
    failed = reread(run)
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error == "a size, a count or an interval is below one"


def test_a_failed_or_cancelled_run_can_be_retried_and_no_other(company, run, now):
    assert retry_run(run, actor="user:1", now=now) is None
    with acting_for(company.id):
        run.request_cancel(now, actor="user:1")
    again = retry_run(reread(run), actor="user:1", now=now)
    assert (again.status, again.dataset_id, again.rung) == ("queued", run.dataset_id, run.rung)
    assert adapter_name(again) != adapter_name(run)
    assert retry_run(reread(run), actor="user:1", now=now) is None  # one is open


def test_a_run_of_an_old_dataset_or_of_work_that_is_not_suitable_any_more_is_not_retried(company, run, dataset, now):
    with acting_for(company.id):
        run.request_cancel(now, actor="user:1")
        Workload.objects.update(verdict="unsuitable")
    assert retry_run(reread(run), actor="user:1", now=now) is None
    with acting_for(company.id):
        Workload.objects.update(verdict="suitable")
        Dataset.objects.create(workload_id=dataset.workload_id, version=2, kind="label", created_at=now, frozen_at=now)
    assert retry_run(reread(run), actor="user:1", now=now) is None


def test_an_adapter_s_name_says_nothing_of_the_prompt(company, run):
    with acting_for(company.id):
        workload = Workload.objects.get()
    assert adapter_name(run).startswith(f"w{workload.id.hex[:12]}-v1-head-")


def test_the_lease_is_kept_while_the_artifact_goes_into_the_store(company, run, settings, tmp_path):
    ensure_models(tell=print)
    fsspec.register_implementation("slow", SlowStore, clobber=True)
    settings.ARTIFACTS_URL, settings.LEASE_SECONDS = f"slow://{tmp_path}/store", 1
    SlowStore.begun, SlowStore.beats = threading.Event(), threading.Semaphore(0)

    def watched():
        if SlowStore.begun.is_set():
            SlowStore.beats.release()
        return clock()

    assert carry_out(company.id, run.id, clock=watched)
    assert reread(run).status == "succeeded"


def test_a_store_that_is_away_for_a_while_does_not_cost_the_training(company, run, settings, tmp_path):
    ensure_models(tell=print)
    fsspec.register_implementation("shaky", ShakyStore, clobber=True)
    settings.ARTIFACTS_URL, settings.LEASE_SECONDS = f"shaky://{tmp_path}/store", 1
    ShakyStore.faults = 2
    assert carry_out(company.id, run.id, clock=clock)
    assert (reread(run).status, reread(run).attempts, ShakyStore.faults) == ("succeeded", 1, 0)


def test_only_one_worker_can_claim_a_run_and_an_expired_lease_frees_it(company, run, now):
    with acting_for(company.id):
        first, second = reread(run), reread(run)
        assert first.claim(now, lease=LEASE) == 1
        assert second.claim(now, lease=LEASE) is None
    assert runs_due(now) == []
    later = now + timedelta(seconds=61)
    assert runs_due(later) == [(company.id, run.id)]
    with acting_for(company.id):
        assert reread(run).claim(later, lease=LEASE) == 2


def test_tenants_take_turns_at_the_trainers(company, rival, dataset, run, now):
    """A tenant with many workloads does not keep another with one waiting."""
    with acting_for(company.id):
        second = TrainingRun.objects.create(
            dataset=dataset, rung="lora", created_at=now + timedelta(minutes=1), currency="USD"
        )
    with acting_for(rival.id):
        workload = Workload.objects.create(slug="theirs", name="theirs", kind="label", found_at=now, looked_at=now)
        theirs = Dataset.objects.create(workload=workload, version=1, kind="label", created_at=now, frozen_at=now)
        late = TrainingRun.objects.create(
            dataset=theirs, rung="lora", created_at=now + timedelta(hours=1), currency="USD"
        )
    assert [each for _, each in runs_due(now)] == [run.id, late.id, second.id]
    with acting_for(company.id):
        run.claim(now, lease=timedelta(minutes=1))
    assert [each for _, each in runs_due(now)] == [late.id, second.id]


def test_who_lost_the_lease_cannot_write_any_more(company, run, now):
    later = now + timedelta(seconds=61)
    with acting_for(company.id):
        stale = reread(run)
        token = stale.claim(now, lease=LEASE)
        reread(run).claim(later, lease=LEASE)
        assert not stale.beat(later, token=token, lease=LEASE, progress={})
        assert not stale.finish(later, token=token, to="succeeded")
    assert reread(run).status == "running"


def test_a_queued_run_is_cancelled_at_once_and_a_running_one_at_its_next_heartbeat(company, run, dataset, now):
    with acting_for(company.id):
        assert reread(run).request_cancel(now, actor="user:1")
    assert reread(run).status == "cancelled"
    again = queue_run(dataset, rung="head", now=now)
    with acting_for(company.id):
        running = reread(again)
        token = running.claim(now, lease=LEASE)
        assert reread(again).request_cancel(now, actor="user:1")
        assert not running.beat(now, token=token, lease=LEASE, progress={})


def test_a_run_that_keeps_killing_its_worker_is_given_up(company, run, now):
    at = now
    for _ in range(MAX_ATTEMPTS):
        with acting_for(company.id):
            assert reread(run).claim(at, lease=LEASE)
        at += timedelta(hours=1)
    assert not carry_out(company.id, run.id, clock=lambda: at)
    assert reread(run).status == "failed"


def test_a_run_stops_when_its_tenant_is_suspended_and_is_done_once_it_is_reinstated(company, run, settings, now):
    """It spends money that nobody may pay for, and it has lost none of its attempts by it."""
    ensure_models(tell=print)
    settings.LEASE_SECONDS = 1  # a beat every quarter of a second, and the trainer takes longer to start

    def suspending():
        with acting_for(company.id):
            at_work = TrainingRun.objects.filter(status="running").exists()
        if at_work:
            suspend(company.id, actor="test", now=now)
        return clock()

    assert carry_out(company.id, run.id, clock=suspending)
    put_off = reread(run)
    assert (put_off.status, put_off.attempts, put_off.error) == ("running", 0, "") and put_off.cost > 0
    assert runs_due(clock()) == []
    reinstate(company.id, actor="test", now=now)
    assert runs_due(clock()) == [(company.id, run.id)]
    assert carry_out(company.id, run.id, clock=clock)
    assert (reread(run).status, reread(run).attempts) == ("succeeded", 1)


def test_a_rival_can_neither_see_nor_carry_out_a_run(rival, run):
    with pytest.raises(TrainingRun.DoesNotExist):
        carry_out(rival.id, run.id, clock=clock)


def test_a_run_reads_no_rows_while_an_erasure_is_under_way(company, dataset, run, tmp_path):
    """It would train on what is being erased, and would have begun too late to be marked."""
    erased, done = threading.Event(), threading.Event()

    def erase_slowly():
        with acting_for(company.id):
            request_erasure("anna", actor="test", clock=clock)
            erased.set()
            done.wait(30)
        connection.close()

    def read():
        attempt = _claim(company.id, run.id, clock)
        _write_spec(attempt.run, attempt.token, tmp_path / "run")
        connection.close()

    threads = [threading.Thread(target=each) for each in (erase_slowly, read)]
    threads[0].start()
    assert erased.wait(30)
    threads[1].start()
    wait_for(erasures_waiting)
    assert (tmp_path / "run" / "data.jsonl").exists() is False
    done.set()
    for each in threads:
        each.join(30)
    assert (tmp_path / "run" / "data.jsonl").stat().st_size > 0
