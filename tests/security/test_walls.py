"""Holds both walls: no query, raw or built, shows or changes a rival's row, and no reference crosses tenants."""

import psycopg
import pytest
from django.apps import apps
from django.db import connection, connections
from django.db.utils import DatabaseError

from ingestion.models import Dataset, Workload
from tenants.models import ApiKey
from tenants.scope import AnotherTenantInForce, NoTenantInForce, TenantOwned, acting_for

OWNED = [model for model in apps.get_models() if issubclass(model, TenantOwned)]


@pytest.mark.parametrize("model", OWNED, ids=lambda model: model._meta.label)
def test_a_tenant_owned_model_refuses_to_build_a_queryset_without_a_tenant(model):
    with pytest.raises(NoTenantInForce):
        model.objects.all()


@pytest.mark.parametrize("model", OWNED, ids=lambda model: model._meta.label)
def test_row_level_security_is_forced_on_every_tenant_owned_table(model, database):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = %s", [model._meta.db_table]
        )
        assert cursor.fetchone() == (True, True)


def test_a_table_with_a_tenant_column_never_lacks_the_wall(database):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
        )
        assert cursor.fetchall() == []


def test_partitions_cannot_be_read_by_name(database):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ingestion_payload'::regclass"
        )
        names = [name for (name,) in cursor.fetchall()]
    assert len(names) >= 4
    for name in names:
        with pytest.raises(DatabaseError, match="permission denied"), connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {name}")


def test_raw_sql_as_a_rival_returns_and_changes_nothing(company, rival):
    with acting_for(rival.id), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenants_apikey WHERE tenant_id = %s", [company.id])
        assert cursor.fetchone() == (0,)
        cursor.execute("UPDATE tenants_apikey SET revoked_at = now() WHERE tenant_id = %s", [company.id])
        assert cursor.rowcount == 0
    with acting_for(company.id):
        assert ApiKey.objects.get().revoked_at is None


def test_a_row_cannot_be_written_for_another_tenant(company, rival, now):
    with acting_for(rival.id), pytest.raises(DatabaseError, match="row-level security"), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenants_event (id, kind, at, actor, subject_id, data, tenant_id) "
            "VALUES (gen_random_uuid(), 'forged', %s, 'x', '', '{}', %s)",
            [now, company.id],
        )


def test_without_a_tenant_in_force_the_application_role_sees_no_row(company):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenants_tenant")
        assert cursor.fetchone() == (0,)


def test_a_row_cannot_point_at_a_rivals_row(company, rival, now):
    with acting_for(company.id):
        theirs = Workload.objects.create(
            slug="routing", name="Routing", kind="label", dialect="openai", asked_model="m", found_at=now, looked_at=now
        )
    with pytest.raises(DatabaseError, match="foreign key"), acting_for(rival.id):
        Dataset.objects.create(workload_id=theirs.id, version=1, kind="label", created_at=now)


def test_every_reference_between_tenant_owned_tables_carries_the_tenant(database):
    tables = {model._meta.db_table for model in OWNED}
    missing = []
    for model in OWNED:
        for field in model._meta.fields:
            target = field.related_model
            if target is None or target._meta.db_table not in tables or target._meta.label == "tenants.Tenant":
                continue
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT 1 FROM pg_constraint WHERE conrelid = %s::regclass AND confrelid = %s::regclass "
                    "AND contype = 'f' AND array_length(conkey, 1) = 2",
                    [model._meta.db_table, target._meta.db_table],
                )
                if cursor.fetchone() is None:
                    missing.append(f"{model._meta.label}.{field.name}")
    assert missing == []


def test_the_door_reads_across_tenants_and_writes_nothing(company, rival):
    assert ApiKey.across_tenants.count() == 2
    with pytest.raises(DatabaseError, match="permission denied"), connections["door"].cursor() as cursor:
        cursor.execute("UPDATE tenants_apikey SET revoked_at = now()")


def test_the_door_cannot_read_payloads_or_examples(database):
    for table in ("ingestion_payload", "ingestion_example", "ingestion_call"):
        with pytest.raises(DatabaseError, match="permission denied"), connections["door"].cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {table}")


def test_acting_for_two_tenants_at_once_is_refused(company, rival):
    with acting_for(company.id), pytest.raises(AnotherTenantInForce), acting_for(rival.id):
        pass


def test_the_ledger_and_the_event_log_can_only_grow(company):
    for statement in (
        "DELETE FROM tenants_event",
        "UPDATE tenants_event SET kind = 'x'",
        "DELETE FROM billing_ledgerentry",
    ):
        with (
            pytest.raises(DatabaseError, match="permission denied"),
            acting_for(company.id),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_the_application_role_cannot_lift_the_wall(database):
    for statement in (
        "ALTER TABLE tenants_tenant DISABLE ROW LEVEL SECURITY",
        "SET row_security = off; TABLE tenants_tenant",
    ):
        with pytest.raises((DatabaseError, psycopg.Error)), connection.cursor() as cursor:
            cursor.execute(statement)
