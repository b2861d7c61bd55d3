"""Starts the real PostgreSQL and Valkey of a test run, on a database of its own, before Django reads its settings.

Where pytest-xdist runs several processes, each has a database, a Valkey and folders of its own on the one PostgreSQL.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import psycopg.sql
import pytest

from config import embedded
from config.paths import state_dir


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Point every URL at a fresh database on the embedded server, reached by the production roles."""
    name = f"test_{os.getpid()}"
    urls = find_postgres()
    admin = replace_database(urls["OWNER_DATABASE_URL"], "postgres").replace("understudy_owner@", "postgres@")
    os.environ.update({variable: replace_database(url, name) for variable, url in urls.items()})
    _drop(admin, name)  # one of a run that was killed, whose process id came round
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


def find_postgres() -> dict[str, str]:
    """Start the server and make its roles, or take what the process that started this one has made."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return {variable: os.environ[variable] for variable in embedded.ROLES}
    return embedded.start_postgres(state_dir(os.environ))


def replace_database(url: str, name: str) -> str:
    """The same server and role, another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _drop(admin_url: str, name: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psycopg.sql.Identifier(name))
        )
