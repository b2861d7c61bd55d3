"""Holds that no tenant's rows stay on a trainer's disk or in the store once their run is over, and that a run at work
loses nothing.
"""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from ingestion.models import Dataset, Workload
from tenants.models import Tenant
from tenants.scope import acting_for
from training.artifacts import UnableToStore, stored_artifacts
from training.launch import artifact_prefix
from training.leftovers import drop_strays, remove_leftovers
from training.models import Adapter, TrainingRun
from training.tasks import strays


@pytest.fixture(autouse=True)
def runs_dir(settings, tmp_path) -> Path:
    settings.RUNS_DIR = tmp_path
    return tmp_path


def make_run(company, now, *, status: str) -> TrainingRun:
    with acting_for(company.id):
        workload = Workload.objects.create(slug=status, name=status, kind="label", found_at=now, looked_at=now)
        dataset = Dataset.objects.create(workload=workload, version=1, kind="label", created_at=now)
        return TrainingRun.objects.create(dataset=dataset, rung="head", status=status, created_at=now)


def leave_rows(runs_dir: Path, name: object) -> Path:
    folder = runs_dir / str(name)
    folder.mkdir()
    (folder / "data.jsonl").write_text("{}")
    return folder


@pytest.mark.parametrize(("status", "stays"), [("running", True), ("queued", True), ("failed", False)])
def test_rows_stay_while_their_run_is_open(company, now, runs_dir, status, stays):
    folder = leave_rows(runs_dir, make_run(company, now, status=status).id)
    assert remove_leftovers(now=now) == (0 if stays else 1)
    assert folder.exists() == stays


def test_rows_of_an_unknown_run_go_and_what_is_no_run_s_stays(company, now, runs_dir):
    unknown, other = leave_rows(runs_dir, uuid4()), leave_rows(runs_dir, "lost+found")
    assert remove_leftovers(now=now) == 1
    assert other.exists() and not unknown.exists()


def test_a_suspended_tenant_s_rows_go_and_its_rival_s_stay(company, rival, now, runs_dir):
    folders = {who: leave_rows(runs_dir, make_run(who, now, status="running").id) for who in (company, rival)}
    with acting_for(company.id):
        Tenant.objects.update(status="suspended")
    assert remove_leftovers(now=now) == 1
    assert folders[rival].exists() and not folders[company].exists()


def test_what_a_trainer_is_at_stays_also_when_its_tenant_is_suspended(company, now, runs_dir):
    """Trainers may share a disk: one must not take the floor from under another."""
    run = make_run(company, now, status="running")
    folder = leave_rows(runs_dir, run.id)
    with acting_for(company.id):
        Tenant.objects.update(status="suspended")
        TrainingRun.objects.update(lease_until=now + timedelta(seconds=5))
    assert remove_leftovers(now=now) == 0 and folder.exists()
    assert remove_leftovers(now=now + timedelta(seconds=6)) == 1


def test_a_trainer_without_a_folder_has_nothing_to_remove(settings, tmp_path, database, now):
    settings.RUNS_DIR = tmp_path / "nowhere"
    assert remove_leftovers(now=now) == 0


@pytest.fixture
def store(settings, tmp_path) -> Path:
    settings.ARTIFACTS_URL = (tmp_path / "store").as_uri()
    settings.ARTIFACTS_CACHE = tmp_path / "cache"
    return tmp_path / "store"


def leave_artifact(store: Path, run: TrainingRun, token: int) -> str:
    """What an attempt had put there when it was lost: a manifest or not, with answers in it."""
    key = f"{artifact_prefix(run)}-{token}"
    (store / key).mkdir(parents=True)
    (store / key / "neighbours.json").write_text("[]")
    return key


def make_adapter(company, run, now, *, key: str) -> None:
    with acting_for(company.id):
        facts = {"workload_id": run.dataset.workload_id, "dataset": run.dataset, "rung": "head", "checksum": "c"}
        Adapter.objects.create(run=run, name=key, artifact_key=key, created_at=now, **facts)


def test_an_artifact_of_a_lost_attempt_goes_and_the_adapter_s_own_stays(company, rival, now, store):
    run, theirs = make_run(company, now, status="succeeded"), make_run(rival, now, status="failed")
    lost, kept, other = leave_artifact(store, run, 1), leave_artifact(store, run, 2), leave_artifact(store, theirs, 1)
    make_adapter(company, run, now, key=kept)
    assert drop_strays(company.id) == [lost]
    assert drop_strays(company.id) == []
    assert stored_artifacts(company.id) == [kept]
    assert stored_artifacts(rival.id) == [other]


def test_an_artifact_stays_while_its_run_is_open_and_goes_when_it_ends_without_an_adapter(company, now, store):
    run = make_run(company, now, status="running")
    key = leave_artifact(store, run, 1)
    assert drop_strays(company.id) == []
    with acting_for(company.id):
        TrainingRun.objects.update(status="failed")
    assert drop_strays(company.id) == [key]


class AwayStore(LocalFileSystem):
    """A store that does not answer."""

    protocol = "away"

    def exists(self, path, **options):
        raise ConnectionError("no answer")


def test_a_store_that_is_away_is_a_warning_and_not_a_fault(company, settings, tmp_path, caplog):
    fsspec.register_implementation("away", AwayStore, clobber=True)
    settings.ARTIFACTS_URL = f"away://{tmp_path}/store"
    with pytest.raises(UnableToStore):
        drop_strays(company.id)
    strays(tenant_id=str(company.id))
    assert "may still be there" in caplog.text
