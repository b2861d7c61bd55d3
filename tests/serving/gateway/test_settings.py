"""A gateway with a bad setting does not start, and says which it is without showing it."""

import pytest

from config.paths import state_dir
from serving.gateway.settings import Ack, UnableToStart, read_settings, snapshot_key
from tenants.core.sealing import DEMO_SECRET

GOOD = {"SNAPSHOT_FILE": "/run/s", "SPOOL_DIR": "/run/spool", "SECRET_KEY": "k" * 50}


def test_what_is_not_set_has_its_documented_default():
    settings = read_settings(GOOD)
    assert (settings.port, settings.max_body_bytes, settings.student_timeout) == (8787, 10_000_000, 3.0)
    assert "k" * 50 not in repr(settings) and str(settings.snapshot_key) not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", "k3y"),
        ("SECRET_KEY", ""),
        ("GATEWAY_PORT", "http"),
        ("GATEWAY_PORT", "70000"),
        ("MAX_BODY_BYTES", "nan"),
        ("STUDENT_TIMEOUT_S", "-1"),
        ("TEACHER_TIMEOUT_S", "inf"),
        ("PROVIDER_ALLOW_PRIVATE", "maybe"),
        ("PRODUCTION", "sure"),
        ("CALL_LOG", "loud"),
        ("CAPTURE_ACK", "fsync"),
        ("CAPTURE_ACK", "Disk"),
        ("GATEWAY_PROCESSES", "0"),
        ("GATEWAY_PROCESSES", "257"),
        ("COUNTERS_URL", "http://valkey:6379"),
        ("COUNTERS_URL", "redis://:word@"),
        ("COUNTERS_URL", "redis://valkey:port"),
        ("ANSWERS_URL", "valkey:6379"),
        ("VALKEY_URL", "unix:///run/valkey"),
    ],
)
def test_a_bad_value_is_named_and_not_shown(name, value):
    with pytest.raises(UnableToStart, match=name) as refused:
        read_settings(GOOD | {name: value})
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize(("told", "ack"), [({}, Ack.OS), *(({"CAPTURE_ACK": ack}, Ack(ack)) for ack in Ack)])
def test_an_acknowledgement_means_what_it_is_told_to_and_a_wrong_one_is_told_what_there_is(told, ack):
    assert read_settings(GOOD | told).capture_ack is ack
    with pytest.raises(UnableToStart, match="CAPTURE_ACK is none of memory, os, disk"):
        read_settings(GOOD | {"CAPTURE_ACK": "both"})


def test_the_demos_secret_seals_nothing_in_production():
    demo = GOOD | {"SECRET_KEY": DEMO_SECRET}
    assert read_settings(demo).snapshot_key
    with pytest.raises(UnableToStart, match="SECRET_KEY is the demo's") as refused:
        read_settings(demo | {"PRODUCTION": "1"})
    assert DEMO_SECRET not in str(refused.value)


def test_on_a_bare_machine_it_looks_where_the_feed_writes():
    bare = read_settings({})
    assert (bare.spool_dir, bare.snapshot_file) == (
        state_dir({}) / "spool",
        state_dir({}) / "snapshot.sealed",
    )
    assert bare.snapshot_key == snapshot_key(DEMO_SECRET.encode())
    assert read_settings({"STATE_DIR": "/run/x"}).spool_dir == state_dir({"STATE_DIR": "/run/x"}) / "spool"


@pytest.mark.parametrize("missing", GOOD)
def test_in_production_nothing_is_kept_where_nobody_has_said(missing):
    environ = {name: value for name, value in GOOD.items() if name != missing} | {"PRODUCTION": "1"}
    with pytest.raises(UnableToStart, match=missing):
        read_settings(environ)


BROKER, COUNTERS, ANSWERS = "redis://broker:6379/0", "redis://counters:6379/0", "rediss://:word@answers:6379/0"


@pytest.mark.parametrize(
    ("told", "counters", "answers"),
    [
        ({}, "", ""),
        ({"VALKEY_URL": BROKER}, BROKER, BROKER),
        ({"VALKEY_URL": BROKER, "COUNTERS_URL": COUNTERS, "ANSWERS_URL": ANSWERS}, COUNTERS, ANSWERS),
        ({"VALKEY_URL": BROKER, "PRODUCTION": "1"}, BROKER, ""),
        ({"COUNTERS_URL": COUNTERS, "ANSWERS_URL": ANSWERS, "PRODUCTION": "1"}, COUNTERS, ANSWERS),
    ],
)
def test_limits_and_answers_are_kept_where_they_are_told_and_answers_never_at_a_production_broker(
    told, counters, answers
):
    settings = read_settings(GOOD | told)
    assert (settings.counters_url, settings.answers_url) == (counters, answers)
    assert "word" not in repr(settings)
