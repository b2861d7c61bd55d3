"""Holds that an erased person is gone from bodies, examples and facts, stays gone, and that nobody else loses a row."""

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import DatabaseError, connection

import ingestion.erase
from ingestion.core.calls import CallRecord, body_context
from ingestion.erase import (
    UnableToErase,
    _carry_out,
    await_erasures,
    calls_to_erase,
    carry_out_erasures,
    erasures_open,
    hash_subject,
    held_calls,
    is_erased,
    reapply_erasures,
    request_erasure,
)
from ingestion.models import Call, Dataset, ErasedSubject, Erasure, Example, ParkedRecord, Payload, Workload
from ingestion.store import store_calls
from tenants.core.sealing import seal
from tenants.data_keys import purpose_key
from tenants.models import Event
from tenants.provision import data_key_in_force
from tenants.scope import NoTenantInForce, acting_for
from tests.fakes.serve import wait_for

ANNA, BORIS = "anna@customer.example", "boris@customer.example"


def record(company, subject: str, *, call_id: UUID | None = None, now) -> CallRecord:
    """A spool record as a gateway writes it."""
    with acting_for(company.id):
        data_key = data_key_in_force()
    found = str(call_id or uuid4())
    bodies = {
        column: seal(data_key, b"{}", context=body_context(found, str(company.id), column))
        for column in ("request", "response")
    }
    return CallRecord(
        id=found,
        tenant_id=str(company.id),
        key_id=str(company.key.id),
        at=now.timestamp(),
        dialect="openai",
        asked_model="gpt-4o-mini",
        subject_hmac=hash_subject(purpose_key(data_key, "subjects"), subject) if subject else "",
        request_sealed=bodies["request"],
        response_sealed=bodies["response"],
    )


def store(*records: CallRecord, now) -> list[UUID]:
    assert store_calls(records, price=lambda _: None, now=now) == 0
    return [UUID(found.id) for found in records]


def make_dataset(company, call_ids, *, now) -> Dataset:
    with acting_for(company.id):
        workload, _ = Workload.objects.get_or_create(
            slug="routing",
            tenant_id=company.id,
            defaults={
                "name": "Routing",
                "kind": "label",
                "dialect": "openai",
                "asked_model": "m",
                "found_at": now,
                "looked_at": now,
            },
        )
        version = Dataset.objects.count() + 1
        dataset = Dataset.objects.create(workload=workload, version=version, kind="label", created_at=now)
        for call_id in call_ids:
            Example.objects.create(
                dataset=dataset,
                call_id=call_id,
                at=now,
                split="train",
                cluster=0,
                provider="openai",
                stance="allowed",
                query_sealed=b"x",
                answer_sealed=b"x",
            )
    return dataset


def ask(company, subject, *, now) -> Erasure:
    with acting_for(company.id):
        return request_erasure(subject, actor="test", clock=lambda: now)


def erase(company, subject, *, now) -> Erasure:
    """Asked for and carried out."""
    asked = ask(company, subject, now=now)
    (carried_out,) = carry_out_erasures(company.id, clock=lambda: now)
    assert carried_out.id == asked.id
    return carried_out


def held(company) -> tuple[int, int, int]:
    """Payloads, examples, and calls that still name a subject."""
    with acting_for(company.id):
        return Payload.objects.count(), Example.objects.count(), Call.objects.exclude(subject_hmac="").count()


def test_everything_of_the_person_goes_and_everything_of_others_stays(company, now):
    anna = store(record(company, ANNA, now=now), record(company, ANNA, now=now), now=now)
    boris = store(record(company, BORIS, now=now), now=now)
    nobody = store(record(company, "", now=now), now=now)
    dataset = make_dataset(company, [*anna, *boris, *nobody], now=now)
    other = make_dataset(company, boris, now=now)

    erasure = erase(company, ANNA, now=now)

    assert (erasure.calls, erasure.payloads, erasure.examples, erasure.is_new) == (2, 2, 2, True)
    assert erasure.datasets == [str(dataset.id)]
    assert str(other.id) not in erasure.datasets
    assert held(company) == (2, 3, 1)
    with acting_for(company.id):
        assert Call.objects.count() == 4  # the facts of the calls stay: what they cost is not the person's
        assert set(Payload.objects.values_list("call_id", flat=True)) == {*boris, *nobody}


def test_the_log_says_what_was_erased_and_not_whose(company, now):
    dataset = make_dataset(company, store(record(company, ANNA, now=now), now=now), now=now)
    erase(company, ANNA, now=now)
    with acting_for(company.id):
        event = Event.objects.get(kind="subject.erased")
    assert event.data == {"calls": 1, "payloads": 1, "examples": 1, "parked": 0, "datasets": [str(dataset.id)]}
    assert event.subject_id == ""


def test_erasing_twice_is_the_same_as_erasing_once(company, now):
    store(record(company, ANNA, now=now), now=now)
    erase(company, ANNA, now=now)
    again = erase(company, ANNA, now=now + timedelta(days=1))
    assert (again.calls, again.payloads, again.examples, again.is_new) == (0, 0, 0, False)
    with acting_for(company.id):
        assert ErasedSubject.objects.get().erased_at == now
        assert Event.objects.filter(kind="subject.erased").count() == 1


def test_what_still_lay_in_a_spool_is_refused_where_it_is_written(company, now):
    late = record(company, ANNA, now=now)
    erase(company, ANNA, now=now)
    store(late, record(company, BORIS, now=now), now=now)
    assert held(company) == (1, 0, 1)


def test_what_arrives_is_refused_from_the_request_on_and_not_only_once_it_is_carried_out(company, now):
    ask(company, ANNA, now=now)
    store(record(company, ANNA, now=now), now=now)
    assert held(company) == (0, 0, 0)


def test_a_person_of_many_calls_is_forgotten_a_part_at_a_time_and_told_of_once(company, monkeypatch, now):
    monkeypatch.setattr("ingestion.erase.BATCH", 2)
    calls = store(*(record(company, ANNA, now=now) for _ in range(5)), now=now)
    datasets = [make_dataset(company, [call], now=now) for call in calls[::4]]
    erasure = erase(company, ANNA, now=now)
    assert (erasure.calls, erasure.payloads, erasure.examples) == (5, 5, 2)
    assert erasure.datasets == sorted(str(dataset.id) for dataset in datasets)
    with acting_for(company.id):
        assert Event.objects.get(kind="subject.erased").data["calls"] == 5
    assert held(company) == (0, 0, 0)


def test_an_erasure_that_was_cut_off_goes_on_and_counts_everything_once(company, monkeypatch, now):
    monkeypatch.setattr("ingestion.erase.BATCH", 2)
    calls = store(*(record(company, ANNA, now=now) for _ in range(4)), now=now)
    dataset = make_dataset(company, calls, now=now)
    asked = ask(company, ANNA, now=now)

    def cut_off():
        raise SystemExit

    with pytest.raises(SystemExit):  # by then both full parts are committed, and the last is rolled back
        carry_out_erasures(company.id, clock=cut_off)
    assert erasures_open() == [company.id]
    assert held(company) == (0, 0, 0)
    (erasure,) = carry_out_erasures(company.id, clock=lambda: now)
    assert (erasure.id, erasure.calls, erasure.examples) == (asked.id, 4, 4)
    assert erasure.datasets == [str(dataset.id)]
    assert erasures_open() == []


def test_asking_again_while_it_is_at_work_is_the_same_request(company, rival, now):
    assert ask(company, ANNA, now=now).id == ask(company, ANNA, now=now + timedelta(minutes=1)).id
    ask(rival, ANNA, now=now)
    assert len(carry_out_erasures(company.id, clock=lambda: now)) == 1
    assert erasures_open() == [rival.id]
    assert ask(company, ANNA, now=now).is_new is False


def test_two_workers_at_one_erasure_count_it_once(company, now):
    store(record(company, ANNA, now=now), now=now)
    ask(company, ANNA, now=now)
    with acting_for(company.id):
        stale = Erasure.objects.get()
    carry_out_erasures(company.id, clock=lambda: now)
    assert stale.finished_at is None
    assert _carry_out(stale, lambda: now).calls == 1
    with acting_for(company.id):
        assert Erasure.objects.get().calls == 1
        assert Event.objects.filter(kind="subject.erased").count() == 1


def bring_back(company, subject, *, now) -> None:
    """What a restored backup does: rows of an erased person, past the tombstone."""
    back = record(company, subject, now=now)
    with acting_for(company.id):
        Call.objects.create(
            id=UUID(back.id),
            key_id=company.key.id,
            at=now,
            dialect="openai",
            asked_model="m",
            arm="teacher",
            subject_hmac=back.subject_hmac,
        )
        Payload.objects.create(call_id=UUID(back.id), request_sealed=b"x")


def test_what_a_backup_brought_back_goes_with_the_next_erasure(company, now):
    erase(company, ANNA, now=now)
    bring_back(company, ANNA, now=now)
    assert erase(company, ANNA, now=now).payloads == 1
    assert held(company) == (0, 0, 0)


def test_every_erasure_is_applied_again_after_a_restore(company, rival, now):
    for owner in (company, rival):
        erase(owner, ANNA, now=now)
        bring_back(owner, ANNA, now=now)
    bring_back(company, BORIS, now=now)
    assert reapply_erasures(company.id, clock=lambda: now) == 1
    assert reapply_erasures(company.id, clock=lambda: now) == 0
    assert held(company) == (1, 0, 1)
    assert held(rival) == (1, 0, 1)


def test_an_erasure_waits_for_a_writer_that_looked_before_it(company, now):
    """Else the writer would put back, a moment later, what the erasure had just removed."""
    late = record(company, ANNA, now=now)
    erased = []

    def erase_elsewhere():
        erased.append(erase(company, ANNA, now=now))
        connection.close()

    other = threading.Thread(target=erase_elsewhere)
    with acting_for(company.id):
        assert is_erased([late.subject_hmac]) == set()
        other.start()
        wait_for(erasures_waiting)
        assert erased == []
        store(late, now=now)
    other.join(15)
    assert erased[0].payloads == 1
    assert held(company) == (0, 0, 0)


def test_an_erasure_tells_the_time_once_it_holds_what_a_reader_held_before_it(company, now):
    """A run that read the person's rows in between then began before the erasure, and its adapter is marked."""
    store(record(company, ANNA, now=now), now=now)
    ask(company, ANNA, now=now)
    times = iter([now + timedelta(minutes=5)])
    read = []

    def clock():
        read.append(next(times))
        return read[-1]

    def erase_elsewhere():
        carry_out_erasures(company.id, clock=clock)
        connection.close()

    other = threading.Thread(target=erase_elsewhere)
    with acting_for(company.id):
        await_erasures()
        other.start()
        wait_for(erasures_waiting)
        assert read == []
    other.join(15)
    with acting_for(company.id):
        assert Event.objects.get(kind="subject.erased").at == now + timedelta(minutes=5)


def erasures_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return cursor.fetchone()[0] > 0


def test_a_parked_record_of_the_person_goes_too(company, rival, now):
    for owner, subject in ((company, ANNA), (company, BORIS), (rival, ANNA)):
        park(owner, msgspec.msgpack.encode(record(owner, subject, now=now)), now=now)
    park(company, b"\xc1 torn", now=now)
    assert erase(company, ANNA, now=now).parked == 1
    assert ParkedRecord.across_tenants.filter(tenant_id=company.id).count() == 2
    assert ParkedRecord.across_tenants.filter(tenant_id=rival.id).count() == 1


def park(owner, packed, *, now):
    with acting_for(owner.id):
        ParkedRecord.objects.create(reason="DataError", parked_at=now, record=packed)


def test_a_rivals_person_of_the_same_name_is_not_touched(company, rival, now):
    store(record(company, ANNA, now=now), record(rival, ANNA, now=now), now=now)
    erase(rival, ANNA, now=now)
    assert held(company) == (1, 0, 1)
    assert held(rival) == (0, 0, 0)
    store(record(company, ANNA, now=now), now=now)
    assert held(company) == (2, 0, 2)


def test_tombstones_are_asked_for_by_hmac(company, now):
    with acting_for(company.id):
        key = purpose_key(data_key_in_force(), "subjects")
        request_erasure(ANNA, actor="test", clock=lambda: now)
        hmacs = [hash_subject(key, ANNA), hash_subject(key, BORIS)]
        assert is_erased(hmacs) == {hmacs[0]}
        assert is_erased([]) == set()


def test_calls_whose_bodies_are_gone_are_told_apart(company, now):
    anna = store(record(company, ANNA, now=now), now=now)
    boris = store(record(company, BORIS, now=now), now=now)
    erase(company, ANNA, now=now)
    with acting_for(company.id):
        assert held_calls([*anna, *boris]) == set(boris)


def test_nothing_is_made_of_calls_that_wait_for_their_erasure(company, rival, now):
    anna = store(record(company, ANNA, now=now), now=now)
    boris = store(record(company, BORIS, now=now), now=now)
    theirs = store(record(rival, ANNA, now=now), now=now)
    ask(company, ANNA, now=now)
    with acting_for(company.id):
        assert held_calls([*anna, *boris]) == set(boris)
        assert list(calls_to_erase()) == anna
    with acting_for(rival.id):
        assert held_calls(theirs) == set(theirs)


def test_one_that_fails_keeps_nobody_else_waiting_and_is_told(company, now):
    store(record(company, ANNA, now=now), record(company, BORIS, now=now), now=now)
    first, second = ask(company, ANNA, now=now), ask(company, BORIS, now=now)
    with acting_for(company.id):  # more than its column can hold once it is counted
        Erasure.objects.filter(id=first.id).update(payloads=2**31 - 1)
    with pytest.raises(DatabaseError):
        carry_out_erasures(company.id, clock=lambda: now)
    with acting_for(company.id):
        assert set(Erasure.objects.exclude(finished_at=None)) == {second}
        assert Payload.objects.count() == 1


def test_a_tenant_has_so_many_requests_waiting_and_no_more(company, rival, now, monkeypatch):
    monkeypatch.setattr(ingestion.erase, "MOST_OPEN", 1)
    ask(company, ANNA, now=now)
    with pytest.raises(UnableToErase, match="ask again"):
        ask(company, BORIS, now=now)
    with acting_for(company.id):
        assert ErasedSubject.objects.count() == Erasure.objects.count() == 1
    ask(rival, BORIS, now=now)
    carry_out_erasures(company.id, clock=lambda: now)
    ask(company, BORIS, now=now)


def test_no_subject_is_not_everybody(company, now):
    store(record(company, "", now=now), now=now)
    with pytest.raises(UnableToErase):
        erase(company, "", now=now)
    assert held(company) == (1, 0, 0)


def test_a_subject_is_erased_for_one_tenant_and_never_for_none(company, now):
    with pytest.raises(NoTenantInForce):
        request_erasure(ANNA, actor="test", clock=lambda: now)


def test_a_subject_that_is_no_proper_text_can_be_erased(company, now):
    store(record(company, "\ud800 odd\x00", now=now), now=now)
    assert erase(company, "\ud800 odd\x00", now=now).payloads == 1
