"""Holds that a Django process with a bad setting does not start, and says which it is without showing a secret."""

import os
import subprocess
import sys

import pytest

from config.paths import ROOT

SECRET = "s3cr3t" * 10
PASSWORD = "hunter2"
STANCES_OF_THE_RUN = {"DEMO", "PRODUCTION", "SECRET_KEY"}  # a test states them itself, or they are unset


def import_settings(**given):
    inherited = {name: value for name, value in os.environ.items() if name not in STANCES_OF_THE_RUN}
    command = [sys.executable, "-c", "import config.settings"]
    return subprocess.run(
        command, cwd=ROOT, env=inherited | given, capture_output=True, text=True, timeout=120, check=False
    )


def last_words(done):
    """The error itself: a traceback above it quotes the line that reads the variable, whatever the error says."""
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOWED_HOSTS", ""),
        ("ANTHROPIC_BASE_URL", "api.anthropic.com"),
        ("ARTIFACTS_URL", "/var/lib/artifacts"),
        ("ARTIFACTS_URL", "file://artifacts"),
        ("ARTIFACTS_URL", "s3:///prefix"),
        ("AUDIT_SHARE", "0"),
        ("BEAT_SECONDS", "0.4"),
        ("CONTROL_SHARE", "1"),
        ("CSRF_TRUSTED_ORIGINS", "portal.example"),
        ("DATASET_GROWTH", "1"),
        ("DEMO", "perhaps"),
        ("ENCODER_URLS", "http://one:8791,"),
        ("GATEWAY_URL", "http://"),
        ("LEASE_SECONDS", "4"),
        ("LEASE_SECONDS", "soon"),
        ("LOG_LEVEL", "LOUD"),
        ("LORA_BATCH", "0"),
        ("LORA_EPOCHS", "0"),
        ("LORA_LEARNING_RATE", "0"),
        ("LORA_LEARNING_RATE", "1"),
        ("LORA_LEARNING_RATE", "nan"),
        ("LORA_MODULES", "attention"),
        ("LORA_RANK", "0"),
        ("LORA_RANK", "12"),
        ("LORA_RANK", "513"),
        ("MAX_PAIRS", "500"),
        ("MIN_PAIRS", "99"),
        ("MIN_PAIRS", "30000"),
        ("OPENAI_BASE_URL", "https://api.openai.com/?x=1"),
        ("PREFERRED_RUNG", "oracle"),
        ("RAMP_AUDIT_SHARE", "1.5"),
        ("REPLICA_HOURLY_COST", "-0.01"),
        ("SAVINGS_SHARE", "1.01"),
        ("SHADOW_SHARE", "-1"),
        ("STRIPE_API_BASE", "ftp://stripe"),
        ("STUDENT_TIMEOUT_S", "0"),
        ("TRAINER_HOURLY_COST", "inf"),
        ("VALKEY_URL", "unix:///run/valkey.sock"),
        ("VALKEY_URL", "redis://host:6379/first"),
        ("VLLM_URLS", ""),
        ("VLLM_URLS", "http://one:8790, http://two:8790"),
        ("VLLM_URLS", "http://one:8790/"),
        ("VLLM_URLS", "http://one:port"),
    ],
)
def test_a_bad_value_stops_the_process_and_names_the_variable(name, value):
    done = import_settings(**{name: value})
    assert done.returncode != 0 and name in last_words(done)


@pytest.mark.parametrize("name", ["DATABASE_URL", "DOOR_DATABASE_URL", "OWNER_DATABASE_URL"])
def test_a_database_of_another_kind_is_refused_by_name(name):
    done = import_settings(**{name: f"mysql://understudy:{PASSWORD}@host/understudy"})
    assert done.returncode != 0 and f'"{name}"' in last_words(done)
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"postgresql://understudy:{PASSWORD}/@host/understudy"),  # a slash that is not encoded
        ("DATABASE_URL", f"postgresql://understudy:{PASSWORD}\u2100@host/understudy"),  # what urlsplit itself refuses
        ("DATABASE_URL", f"postgresql://understudy:{PASSWORD}@host"),
        ("DATABASE_URL", f"understudy:{PASSWORD}@host/understudy"),
        ("VALKEY_URL", f"redis://:{PASSWORD}/@host:6379/0"),
        ("VALKEY_URL", f"valkey://:{PASSWORD}@host:6379/0"),
        ("OPENAI_BASE_URL", f"https://user:{PASSWORD}@[host"),
    ],
)
def test_a_password_is_never_part_of_the_complaint(name, value):
    done = import_settings(**{name: value})
    assert done.returncode != 0 and f'"{name}"' in last_words(done)
    assert PASSWORD not in done.stdout + done.stderr


def test_what_operators_set_in_production_is_taken():
    done = import_settings(
        PRODUCTION="1",
        SECRET_KEY=SECRET,
        DATABASE_URL="postgres://understudy_app:p%2Fw@db:5432/understudy?sslmode=require",
        DOOR_DATABASE_URL="postgresql://understudy_door@/understudy?host=%2Frun%2Fpostgresql",
        OWNER_DATABASE_URL="",
        VALKEY_URL="rediss://:password@valkey:6379/0",
        ARTIFACTS_URL="s3://bucket/prefix",
        VLLM_URLS="http://vllm_one:8790,https://vllm-two.example",
        ENCODER_URLS="http://[::1]:8791",
        OPENAI_BASE_URL="https://proxy.example/openai",
        STRIPE_API_BASE="",
        CSRF_TRUSTED_ORIGINS="https://portal.example,https://*.portal.example",
        LOG_LEVEL="DEBUG",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "given",
    [{}, {"SECRET_KEY": "k" * 49}, {"SECRET_KEY": SECRET, "DEMO": "1"}],
    ids=["the demo's secret", "a short secret", "DEMO"],
)
def test_production_refuses_what_only_a_demo_may_use(given):
    done = import_settings(PRODUCTION="1", **given)
    assert done.returncode != 0 and "SECRET_KEY" in last_words(done) and "DEMO" in last_words(done)
    assert not given or given["SECRET_KEY"] not in done.stderr


def test_production_delivers_no_webhook_inside():
    done = import_settings(PRODUCTION="1", SECRET_KEY=SECRET, WEBHOOK_ALLOW_PRIVATE="1")
    assert done.returncode != 0 and "WEBHOOK_ALLOW_PRIVATE" in last_words(done)
