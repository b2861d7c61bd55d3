"""Holds that what an operator is told to type does what operations.md says."""

from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from ingestion.erase import hash_subject
from ingestion.models import Call, Payload
from tenants.data_keys import purpose_key
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from tenants.standing import suspend
from tests.ingestion.makers import log_calls

ANNA = "anna@customer.example"


def log_of(company, subject, now):
    with acting_for(company.id):
        digest = hash_subject(purpose_key(data_key_in_force(), "subjects"), subject)
    return log_calls(company.id, 2, now=now, subject_hmac=digest)


def bodies(company):
    with acting_for(company.id):
        return Payload.objects.count()


def test_erasing_a_subject_removes_what_they_said_in_that_tenant_alone(company, rival, now, capsys):
    for owner in (company, rival):
        log_of(owner, ANNA, now)
    call_command("erase_subject", str(company.id), ANNA)
    assert "2 calls" in capsys.readouterr().out
    assert (bodies(company), bodies(rival)) == (0, 2)


def test_a_tenant_that_is_not_there_is_said(company):
    with pytest.raises(CommandError, match="no such tenant"):
        call_command("erase_subject", "00000000-0000-7000-8000-000000000000", ANNA)


def test_after_a_restore_every_tenant_s_erasures_hold_again_a_suspended_one_s_too(company, rival, now, capsys):
    for owner in (company, rival):
        records = log_of(owner, ANNA, now)
        call_command("erase_subject", str(owner.id), ANNA)
        with acting_for(owner.id):  # the backup has the call as it was
            Call.objects.filter(id=records[0].id).update(subject_hmac=records[0].subject_hmac)
            Payload.objects.create(call_id=records[0].id, request_sealed=b"x", response_sealed=b"x")
    log_of(company, "boris", now + timedelta(hours=1))
    suspend(rival.id, actor="test", now=now)
    capsys.readouterr()
    call_command("reapply_erasures")
    call_command("reapply_erasures")
    first, again = capsys.readouterr().out.splitlines()
    assert (first[0], again[0]) == ("2", "0")
    assert (bodies(company), bodies(rival)) == (2, 0)
