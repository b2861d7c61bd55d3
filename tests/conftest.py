"""The cast of every test: the company, its rival that must never see anything, and the tables between them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import hypothesis
import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command

from tenants.core.keys import MintedKey
from tenants.models import ApiKey, Tenant, User
from tenants.provision import create_key, sign_up, store_credential
from tenants.scope import acting_for

hypothesis.settings.register_profile("unhurried", deadline=None)  # of a busy machine
hypothesis.settings.load_profile("unhurried")
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PASSWORD = "a long enough password"


@dataclass(frozen=True)
class Company:
    """A tenant with its owner and a working key."""

    tenant: Tenant
    user: User
    key: ApiKey
    minted: MintedKey

    @property
    def id(self):
        return self.tenant.id


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture
def company(database) -> Company:
    return make_company("Northwind Freight", "owner@northwind.example")


@pytest.fixture
def rival(database) -> Company:
    """The stranger who must never see anything of the company's."""
    return make_company("Southgate Haulage", "owner@southgate.example")


def make_company(name: str, email: str, *, stance: str = "internal_only") -> Company:
    tenant, user = sign_up(company=name, email=email, password=PASSWORD, now=NOW)
    with acting_for(tenant.id):
        key, minted = create_key(name="first", scope="manage", may_override=True, actor="test", now=NOW)
        for provider in ("openai", "anthropic"):
            store_credential(
                provider=provider,
                base_url="http://127.0.0.1:9",
                secret=f"sk-{provider}-{name[:5]}",
                stance=stance,
                actor="test",
                now=NOW,
            )
    return Company(tenant, user, key, minted)


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker) -> Iterator[None]:
    """Migrate the run's own database as the owner; tests then run as the application's roles.

    Passwords are hashed cheaply here: a good hash is slow on purpose, and every test signs somebody up.
    """
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
    yield


@pytest.fixture
def database(django_db_setup, django_db_blocker) -> Iterator[None]:
    """Committed rows on real connections, as in production; every table is emptied afterwards."""
    with django_db_blocker.unblock():
        yield
    empty_tables()


def empty_tables() -> None:
    """Empty every table but what migrations filled, as who is held by no row's policy and no key.

    Only those that hold a row: to truncate all of them takes longer than most tests.
    """
    admin = os.environ["OWNER_DATABASE_URL"].replace("understudy_owner@", "postgres@")
    with psycopg.connect(admin, autocommit=True) as connection:
        names = connection.execute(
            "SELECT format('%I', relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN "
            "('django_migrations', 'django_content_type', 'auth_permission', 'ingestion_price')"
        ).fetchall()
        look = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for (name,) in names)
        full = [name for (name,) in connection.execute(look).fetchall()]
        connection.execute("SET session_replication_role = replica")
        connection.execute(";".join(f"DELETE FROM {name}" for name in full))
