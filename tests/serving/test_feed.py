"""Holds that what is in the spool reaches the log once, priced, and that gateways see the world as it is."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import DatabaseError

from ingestion.core.calls import Arm
from ingestion.models import Call
from ingestion.spool import Spool, SpoolReader
from serving.core.snapshot import decode
from serving.feed import Feed
from serving.publish import make_snapshot
from serving.rollout import hold
from tenants.core.sealing import derive_key, open_sealed
from tenants.models import ApiKey, ProviderCredential, Tenant
from tenants.provision import revoke_key
from tenants.scope import acting_for
from tests.ingestion.makers import record_of
from tests.serving.makers import make_rollout

KEY = derive_key(b"a secret of the test, long enough", purpose="snapshot")


@pytest.fixture
def spool(tmp_path):
    spool = Spool(tmp_path / "spool", segment_bytes=1_000_000, max_bytes=100_000_000)
    yield spool
    spool.close()


@pytest.fixture
def feed(tmp_path, spool):
    with SpoolReader(tmp_path / "spool") as reader:
        yield Feed(reader, snapshot_file=tmp_path / "snapshot", key=KEY)


def read_snapshot(path: Path):
    return decode(open_sealed(KEY, path.read_bytes(), context="snapshot/1"))


def append(spool, company, now, count, **facts):
    with acting_for(company.id):
        records = [record_of(company.id, f"query {n}", "parcel", at=now, **facts) for n in range(count)]
    for record in records:
        spool.append(record)
    return records


def test_the_spool_is_drained_into_the_log_once_even_if_the_feed_forgets_its_place(company, now, spool, feed, tmp_path):
    append(spool, company, now, 700)
    assert [feed.drain(now), feed.drain(now), feed.drain(now)] == [500, 200, 0]
    with acting_for(company.id):
        assert Call.objects.count() == 700


def test_a_teacher_s_answer_is_priced_at_the_price_of_its_instant(company, now, spool, feed):
    append(spool, company, now, 1, answered_model="gpt-4o", input_tokens=1_000_000, output_tokens=1_000_000)
    feed.drain(now)
    with acting_for(company.id):
        assert Call.objects.get().teacher_cost == Decimal("12.5")


def test_an_unknown_model_has_an_unknown_cost_and_a_student_s_answer_cost_the_teacher_nothing(
    company, now, spool, feed
):
    append(spool, company, now, 1, answered_model="nobody-knows-1")
    append(spool, company, now, 1, arm=Arm.STUDENT)
    feed.drain(now)
    with acting_for(company.id):
        assert set(Call.objects.values_list("arm", "teacher_cost")) == {("teacher", None), ("student", Decimal(0))}


def test_nothing_is_committed_while_the_database_refuses(company, now, spool, feed, monkeypatch):
    append(spool, company, now, 5)
    refused = []

    def refuse(*_, **__):
        refused.append(1)
        raise DatabaseError("away")

    with monkeypatch.context() as patched:
        patched.setattr("serving.feed.store_calls", refuse)
        with pytest.raises(DatabaseError):
            feed.drain(now)
    assert refused and feed.drain(now) == 5
    with acting_for(company.id):
        assert Call.objects.count() == 5


def test_a_snapshot_holds_live_keys_and_sealed_credentials_opened_for_the_gateway_alone(
    company, rival, now, feed, tmp_path
):
    assert feed.publish(now)
    assert not feed.publish(now + timedelta(seconds=1))
    raw = (tmp_path / "snapshot").read_bytes()
    assert b"sk-openai" not in raw
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert snapshot.keys[company.minted.digest].tenant_id == str(company.id)
    assert snapshot.tenants[str(company.id)].providers["openai"][0].credential == "sk-openai-North"
    assert snapshot.tenants[str(rival.id)].data_key != snapshot.tenants[str(company.id)].data_key


def test_a_revoked_key_leaves_the_next_snapshot(company, rival, now, feed, tmp_path):
    feed.publish(now)
    with acting_for(company.id):
        revoke_key(ApiKey.objects.get(), actor="test", now=now)
    assert feed.publish(now)
    assert company.minted.digest not in read_snapshot(tmp_path / "snapshot").keys


def test_revoking_the_only_key_takes_effect_too(company, now, feed, tmp_path):
    feed.publish(now)
    with acting_for(company.id):
        revoke_key(ApiKey.objects.get(), actor="test", now=now)
    assert feed.publish(now)
    assert read_snapshot(tmp_path / "snapshot").keys == {}


def test_a_world_without_tenants_never_replaces_the_last_snapshot(database, now, feed, tmp_path):
    assert not feed.publish(now)
    assert not (tmp_path / "snapshot").exists()


def test_a_rollout_in_play_is_routed_and_a_workload_without_one_is_only_named(company, rival, now):
    rollout = make_rollout(company.id, now, state="canary", share=0.05)
    with acting_for(company.id):
        rollout.workload.fingerprints.create(digest="f" * 32, tenant_id=company.id)
    route = make_snapshot(now).tenants[str(company.id)].routes["f" * 32]
    assert (route.state, route.student_share, route.workload_id) == ("canary", 0.05, str(rollout.workload_id))
    assert route.gate is not None and route.student is not None
    assert make_snapshot(now).tenants[str(rival.id)].routes == {}
    with acting_for(company.id):
        hold(rollout, actor="user:1", reason="wait", now=now)
    assert make_snapshot(now).tenants[str(company.id)].routes["f" * 32].state == "held"


def test_a_suspended_tenant_is_in_the_snapshot_as_such(company, now):
    with acting_for(company.id):
        Tenant.objects.update(status="suspended")
        ProviderCredential.objects.filter(provider="anthropic").delete()
    entry = make_snapshot(now).tenants[str(company.id)]
    assert not entry.active and set(entry.providers) == {"openai"}
