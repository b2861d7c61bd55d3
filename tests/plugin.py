"""Starts the real PostgreSQL and Valkey of a test run, on a database of its own, before Django reads its settings."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psycopg
import psycopg.sql
import pytest

from config import embedded
from config.paths import state_dir


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Point every URL at a fresh database on the embedded server, reached by the production roles."""
    state = state_dir(os.environ)
    urls = embedded.start_postgres(state)
    name = f"test_{os.getpid()}"
    for variable, url in urls.items():
        os.environ[variable] = url.replace(f"/{embedded.DATABASE}?", f"/{name}?")
    admin = urls["OWNER_DATABASE_URL"].replace("understudy_owner@", "postgres@")
    embedded.make_database(admin, name)
    atexit.register(_drop, admin, name)
    scratch = Path(tempfile.mkdtemp(prefix="understudy-test-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ["VALKEY_URL"] = embedded.start_valkey(scratch)
    for variable, folder in {"SPOOL_DIR": "spool", "RUNS_DIR": "runs", "ARTIFACTS_CACHE": "cache"}.items():
        os.environ[variable] = str(scratch / folder)
    os.environ["SNAPSHOT_FILE"] = str(scratch / "snapshot.sealed")
    os.environ["ARTIFACTS_URL"] = (scratch / "artifacts").as_uri()
    os.environ["LOG_LEVEL"] = "WARNING"


def _drop(admin_url: str, name: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psycopg.sql.Identifier(name))
        )
