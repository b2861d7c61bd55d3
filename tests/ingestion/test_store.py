"""Holds that the log loses nothing, doubles nothing, and lets one bad record hurt nobody."""

from uuid import UUID

import msgspec
import psycopg.errors
import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from ingestion.models import Call, ParkedRecord, Payload
from ingestion.payloads import UnableToReadPair, read_pair
from ingestion.prices import PriceBook
from ingestion.store import store_calls, unpark
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from tests.ingestion.makers import log_calls, record_of


def free(record):
    return None


def test_a_batch_stored_twice_is_in_the_log_once(company, now):
    records = log_calls(company.id, 30, now=now)
    assert store_calls(records, price=free, now=now) == 0
    with acting_for(company.id):
        assert Call.objects.count() == Payload.objects.count() == 30


def test_what_was_asked_and_answered_can_be_read_back_by_its_tenant_alone(company, rival, now):
    log_calls(company.id, 1, now=now)
    with acting_for(company.id):
        call, payload = Call.objects.get(), Payload.objects.get()
        pair = read_pair(call, payload, data_key_in_force())
        assert pair.ask.messages[-1].text.startswith("when does pallet")
        assert pair.answer.text == "parcel"
    with acting_for(rival.id):
        assert Call.objects.count() == Payload.objects.count() == 0
        with pytest.raises(UnableToReadPair):
            read_pair(call, payload, data_key_in_force())


def test_a_record_that_cannot_be_stored_is_parked_and_its_neighbours_are_not(company, now):
    with acting_for(company.id):
        good = [record_of(company.id, f"query {n}", "parcel", at=now) for n in range(3)]
    bad = msgspec.structs.replace(good[1], id="not-a-uuid")
    assert store_calls([good[0], bad, good[2]], price=free, now=now) == 1
    with acting_for(company.id):
        assert Call.objects.count() == 2
        parked = ParkedRecord.objects.get()
    assert b"query 1" not in bytes(parked.record)


def test_a_record_of_an_unknown_tenant_is_parked(company, rival, now):
    with acting_for(company.id):
        record = record_of(company.id, "q", "parcel", at=now)
    theirs = {"id": "0197a000-0000-7000-8000-00000000000f", "tenant_id": "00000000-0000-7000-8000-000000000000"}
    stranger = msgspec.structs.replace(record, **theirs)
    assert store_calls([stranger, record], price=free, now=now) == 1
    with acting_for(company.id):
        assert Call.objects.count() == 1
        assert not ParkedRecord.objects.exists()
    assert parked_for() == {UUID(stranger.tenant_id)}
    assert unpark(price=free) == (0, 1)


def test_a_record_that_names_no_tenant_at_all_is_parked_as_nobodys(company, now):
    with acting_for(company.id):
        record = record_of(company.id, "q", "parcel", at=now)
    assert store_calls([msgspec.structs.replace(record, tenant_id="' OR 1=1")], price=free, now=now) == 1
    assert parked_for() == {UUID(int=0)}
    assert unpark(price=free) == (0, 1)


def test_a_parked_record_that_names_another_tenant_than_its_row_stays_parked(company, rival, now):
    with acting_for(company.id):
        forged = msgspec.msgpack.encode(record_of(company.id, "q", "parcel", at=now))
    with acting_for(rival.id):
        ParkedRecord.objects.create(reason="DataError", parked_at=now, record=forged)
    assert unpark(price=free) == (0, 1)
    with acting_for(company.id):
        assert not Call.objects.exists()


def test_storing_a_parked_record_waits_for_an_erasure_before_it_holds_what_the_erasure_needs(company, now):
    with acting_for(company.id):
        record = record_of(company.id, "q", "parcel", at=now)
        ParkedRecord.objects.create(reason="DataError", parked_at=now, record=msgspec.msgpack.encode(record))
    with CaptureQueriesContext(connection) as asked:
        assert unpark(price=free) == (1, 0)
    held = [query["sql"] for query in asked if "advisory" in query["sql"] or "FOR UPDATE" in query["sql"]]
    assert "advisory" in held[0] and any("FOR UPDATE" in query for query in held[1:])


def parked_for():
    return set(ParkedRecord.across_tenants.values_list("tenant_id", flat=True))


def test_odd_characters_in_facts_do_not_stop_a_call_from_being_stored(company, now):
    with acting_for(company.id):
        record = record_of(company.id, "q", "parcel", at=now, asked_model="gpt\x00" + "x" * 500)
    assert store_calls([record], price=free, now=now) == 0
    with acting_for(company.id):
        assert Call.objects.get().asked_model == ("gpt" + "x" * 500)[:120]


@pytest.mark.parametrize(
    "fault", ["DeadlockDetected", "SerializationFailure", "DiskFull", "AdminShutdown", "ConnectionFailure"]
)
def test_what_passes_by_itself_parks_nothing_and_is_left_to_the_next_read(company, now, fault):
    def passing(record):
        raise OperationalError from getattr(psycopg.errors, fault)()

    with acting_for(company.id):
        record = record_of(company.id, "q", "parcel", at=now)
    with pytest.raises(OperationalError):
        store_calls([record], price=passing, now=now)
    assert parked_for() == set()
    assert store_calls([record], price=free, now=now) == 0


def test_a_parked_record_is_stored_once_its_fault_is_mended_and_the_others_stay(company, rival, now, capsys):
    def unpriced(record):
        raise ValueError

    with acting_for(company.id):
        good = record_of(company.id, "q", "parcel", at=now)
    bad = msgspec.structs.replace(good, id="not-a-uuid")
    assert store_calls([good, bad], price=unpriced, now=now) == 2
    call_command("unpark")
    assert capsys.readouterr().out == "1 records stored, 1 still parked\n"
    assert unpark(price=PriceBook.load(now).cost_of) == (0, 1)
    with acting_for(company.id):
        call = Call.objects.get()
        assert call.teacher_cost == PriceBook.load(now).cost_of(good) > 0
    with acting_for(rival.id):
        assert not Call.objects.exists()
