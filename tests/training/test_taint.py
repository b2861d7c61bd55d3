"""Holds that an adapter which learnt from an erased person is marked, once, also if it is finished only afterwards."""

from datetime import timedelta
from uuid import uuid4

import pytest

from ingestion.models import Dataset, Workload
from tenants.events import record_event
from tenants.models import Event
from tenants.scope import acting_for
from training.artifacts import put_artifact
from training.lora.artifact import Manifest, write_manifest
from training.models import Adapter, TrainingRun
from training.taint import drop_tainted, taint_due

HOUR = timedelta(hours=1)


@pytest.fixture
def dataset(company, now):
    with acting_for(company.id):
        workload = Workload.objects.create(
            slug="routing", name="Routing", kind="label", dialect="openai", asked_model="m", found_at=now, looked_at=now
        )
        return Dataset.objects.create(workload=workload, version=1, kind="label", created_at=now)


def make_adapter(company, dataset, *, started_at) -> Adapter:
    with acting_for(company.id):
        run = TrainingRun.objects.create(
            dataset=dataset, rung="head", status="succeeded", created_at=started_at, started_at=started_at
        )
        return Adapter.objects.create(
            run=run,
            workload_id=dataset.workload_id,
            dataset=dataset,
            name=f"a-{uuid4()}",
            rung="head",
            artifact_key="k",
            checksum="c",
            created_at=started_at + HOUR,
        )


def erased(company, *dataset_ids, at):
    with acting_for(company.id):
        record_event("subject.erased", now=at, datasets=[str(found) for found in dataset_ids])


def tainted(company) -> list[str]:
    with acting_for(company.id):
        return list(Event.objects.filter(kind="adapter.tainted").values_list("subject_id", flat=True))


def test_an_adapter_trained_before_the_erasure_is_marked_once(company, dataset, now):
    adapter = make_adapter(company, dataset, started_at=now - HOUR)
    erased(company, dataset.id, at=now)
    assert taint_due(company.id, now=now) == [adapter.id]
    assert taint_due(company.id, now=now) == []
    assert tainted(company) == [str(adapter.id)]


def test_an_adapter_that_was_in_training_is_marked_when_it_is_there(company, dataset, now):
    erased(company, dataset.id, at=now)
    assert taint_due(company.id, now=now) == []
    adapter = make_adapter(company, dataset, started_at=now - timedelta(minutes=1))
    assert taint_due(company.id, now=now + HOUR) == [adapter.id]


def test_an_adapter_trained_after_the_erasure_is_clean(company, dataset, now):
    make_adapter(company, dataset, started_at=now + HOUR)
    erased(company, dataset.id, at=now)
    assert taint_due(company.id, now=now + HOUR) == []


def test_a_rivals_erasure_marks_nothing_of_ours(company, rival, dataset, now):
    make_adapter(company, dataset, started_at=now - HOUR)
    erased(rival, dataset.id, at=now)
    assert taint_due(rival.id, now=now) == []
    assert tainted(company) == []


def test_an_erasure_that_touched_no_dataset_marks_nothing(company, dataset, now):
    make_adapter(company, dataset, started_at=now - HOUR)
    erased(company, at=now)
    assert taint_due(company.id, now=now) == []


def test_the_weights_of_a_marked_adapter_go_once_it_answers_no_more(company, rival, dataset, now, settings, tmp_path):
    settings.ARTIFACTS_URL, settings.ARTIFACTS_CACHE = (tmp_path / "store").as_uri(), tmp_path / "cache"
    marked = make_adapter(company, dataset, started_at=now - HOUR)
    clean = make_adapter(company, dataset, started_at=now + HOUR)
    facts = {"base_model": "", "licence": "", "dataset_hash": "d", "policy": "internal_only", "spec_hash": "s"}
    (tmp_path / "made").mkdir()
    write_manifest(tmp_path / "made", Manifest(adapter="a", rung="head", kind="label", **facts))
    for adapter in (marked, clean):
        put_artifact(tmp_path / "made", key=f"k/{adapter.id}")
        with acting_for(company.id):
            Adapter.objects.filter(id=adapter.id).update(artifact_key=f"k/{adapter.id}")
    erased(company, dataset.id, at=now)
    taint_due(company.id, now=now)
    assert drop_tainted(company.id, now=now) == []
    with acting_for(company.id):
        Adapter.objects.update(status="retired")
    assert drop_tainted(rival.id, now=now) == []
    assert drop_tainted(company.id, now=now) == [marked.id]
    assert drop_tainted(company.id, now=now) == []
    assert [path.name for path in (tmp_path / "store" / "k").iterdir()] == [str(clean.id)]
