"""Holds that callers notice nothing while PostgreSQL is away, and that the log then has every call once."""

import json
import os
import signal
import subprocess
import sys

import httpx
import psycopg
import pytest
from django.conf import settings

from config import embedded, processes
from config.embedded import free_port
from config.paths import ROOT
from config.processes import Household, Ports
from tests.fakes.serve import Served, wait_for
from tests.fakes.teacher import Teacher

MAKE_COMPANY = """
import django; django.setup()
from tenants.models import ProviderCredential
from tenants.scope import acting_for
from tests.conftest import make_company
company = make_company("Northwind Freight", "owner@northwind.example")
with acting_for(company.id):
    ProviderCredential.objects.update(base_url="{teacher}")
print(company.minted.plain)
"""


@pytest.fixture
def other_postgres(tmp_path):
    """A PostgreSQL of the test's own, since it is going to be stopped."""
    urls = embedded.start_postgres(tmp_path / "state")
    yield urls
    stop_postgres(tmp_path / "state")


def postmaster(state) -> int:
    return int((state / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def stop_postgres(state) -> None:
    if (state / "postgres" / "postmaster.pid").exists():
        os.kill(postmaster(state), signal.SIGQUIT)
        wait_for(lambda: not (state / "postgres" / "postmaster.pid").exists())


def count_calls(urls) -> tuple[int, int]:
    admin = urls["OWNER_DATABASE_URL"].replace("understudy_owner@", "postgres@")
    with psycopg.connect(admin) as connection:
        return connection.execute("SELECT count(*), count(DISTINCT id) FROM ingestion_call").fetchone()


def run(argv, environ) -> str:
    return subprocess.run(argv, cwd=ROOT, env=environ, check=True, capture_output=True, text=True).stdout


def test_calls_are_answered_while_the_database_is_away_and_all_arrive_once(tmp_path, other_postgres):
    state, ports = tmp_path / "state", Ports(gateway=free_port())
    environ = {
        **os.environ,
        **other_postgres,
        "STATE_DIR": str(state),
        "SPOOL_DIR": str(tmp_path / "spool"),
        "SNAPSHOT_FILE": str(tmp_path / "snapshot"),
        "SECRET_KEY": settings.SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    run([sys.executable, "manage.py", "migrate"], environ)
    house = Household(environ=environ, logs=tmp_path / "logs")
    with Served(Teacher()) as teacher:
        key = run([sys.executable, "-c", MAKE_COMPANY.format(teacher=teacher.url)], environ).strip()
        try:
            house.start(processes.feed())
            house.start(processes.gateway(ports))
            house.wait_ready("gateway")
            with httpx.Client(base_url=f"http://127.0.0.1:{ports.gateway}", timeout=30) as client:
                client.headers["authorization"] = f"Bearer {key}"
                wait_for(lambda: ask(client) == 200, patience=30)
                answered = 1 + sum(ask(client) == 200 for _ in range(49))
                wait_for(lambda: count_calls(other_postgres)[0] == answered, patience=30)
                stop_postgres(state)
                answered += sum(ask(client) == 200 for _ in range(100))
            assert answered == 150
            embedded.get_server(state / "postgres").ensure_postgres_running()
            wait_for(lambda: count_calls(other_postgres) == (150, 150), patience=60)
        finally:
            house.stop()


def ask(client: httpx.Client) -> int:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "where is my pallet"}]}
    return client.post("/v1/chat/completions", content=json.dumps(body)).status_code
