"""Tries raw SQL as a rival on every table of a tenant's, and reads every policy and grant out of the catalogue.

The tables are found in the catalogue and their rows are made from it, partitions included: a new table is tried here
without anybody naming it, and a table without a tenant's column fails until somebody says that it is nobody's.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import psycopg
import pytest
from django.apps import apps
from django.db import connection, transaction
from psycopg.errors import InsufficientPrivilege
from psycopg.sql import SQL, Composed, Identifier, Literal

from tenants.models import Tenant
from tenants.rls import wall
from tenants.scope import TenantOwned, acting_for

OWNER, APP, DOOR = "understudy_owner", "understudy_app", "understudy_door"
# The tables that the door reads across tenants. What calls said (calls, payloads, datasets, examples) is never one.
OPEN_TO_THE_DOOR = {
    *("tenants_tenant", "tenants_membership", "tenants_apikey", "tenants_providercredential"),
    *("tenants_event", "tenants_webhookdelivery"),
    *("ingestion_workload", "ingestion_fingerprint", "ingestion_erasure"),
    "ingestion_parkedrecord",
    *("training_trainingrun", "training_adapter"),
    *("serving_deployment", "serving_certificate", "serving_rollout", "serving_limit", "serving_modelroute"),
    *("billing_savingsstatement", "billing_invoice"),
}
# The tables without a wall: the framework's own, people (who may belong to several tenants), and the operator's.
NOBODYS = {
    *("auth_group", "auth_group_permissions", "auth_permission"),
    *("django_admin_log", "django_content_type", "django_migrations", "django_session"),
    *("tenants_user", "tenants_user_groups", "tenants_user_user_permissions"),
    "ingestion_price",
}
TABLES = """
SELECT c.relname, a.attname, c.relispartition,
  (SELECT u.attname FROM pg_attribute u WHERE u.attrelid = c.oid AND u.attnum > 0 AND NOT u.attisdropped
   ORDER BY has_column_privilege(%s, c.oid, u.attnum, 'UPDATE') DESC, u.attnum LIMIT 1),
  (SELECT k.attname FROM pg_inherits i JOIN pg_partitioned_table p ON p.partrelid = i.inhparent
   JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = p.partattrs[0] WHERE i.inhrelid = c.oid),
  left(substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \\(''([-0-9a-f]{36})'), 24)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
  AND a.attname = CASE c.relname WHEN 'tenants_tenant' THEN 'id' ELSE 'tenant_id' END
ORDER BY c.relispartition DESC, c.relname
"""
# What the narrowest column of a type takes; texts are random, as some are unique.
VALUES = {
    "uuid": "gen_random_uuid()",
    "boolean": "false",
    "jsonb": "'{}'",
    "bytea": r"'\x00'",
    "timestamp with time zone": "now()",
    "text": "md5(random()::text)",
    "character varying": "md5(random()::text)",
    **dict.fromkeys(("smallint", "integer", "bigint"), "1"),
    **dict.fromkeys(("numeric", "double precision"), "0.5"),
}


@dataclass(frozen=True)
class Table:
    """A table of a tenant's, or a partition of one."""

    name: str
    column: str  # that says whose a row is
    is_partition: bool
    writable: str  # a column that the application's role may update, where there is one
    partition_key: str | None
    bound: str | None  # where the partition begins, without its last digits; None for the default one
    row: str = ""  # one of the company's in it, as JSON

    def sql(self, statement: str, **values: object) -> Composed:
        """The statement with the table's names and some values put in."""
        names = {"t": self.name, "whose": self.column, "writable": self.writable}
        return SQL(statement).format(
            **{key: Identifier(name) for key, name in names.items()}, **{k: Literal(v) for k, v in values.items()}
        )


def find_tables(found: psycopg.Connection) -> list[Table]:
    return [Table(*row) for row in found.execute(TABLES, [APP]).fetchall()]


# --- rows in every table ---------------------------------------------------------------------------------------------


@pytest.fixture
def admin(database) -> Iterator[psycopg.Connection]:
    """The administrator, whom no policy holds, in a transaction that is rolled back."""
    with open_admin() as found:
        yield found
        found.rollback()


def open_admin(**options: bool) -> psycopg.Connection:
    return psycopg.connect(os.environ["OWNER_DATABASE_URL"].replace(f"{OWNER}@", "postgres@"), **options)


@pytest.fixture
def tables(company, rival) -> list[Table]:
    """Every table of a tenant's, each with a row of the company's and one of its rival's, partitions included."""
    with open_admin(autocommit=True) as found:
        found.execute("SET session_replication_role = replica")  # a row needs no rows that it points at
        everything = find_tables(found)
        for tenant in (rival.id, company.id):
            rows = {
                table.name: find_row(found, table, tenant) or make_row(found, table, tenant) for table in everything
            }
    return [replace(table, row=rows[table.name]) for table in everything]


def find_row(found: psycopg.Connection, table: Table, tenant: UUID) -> str | None:
    look = "SELECT to_jsonb({t})::text FROM {t} WHERE {whose} = {who} LIMIT 1"
    return next((row for (row,) in found.execute(table.sql(look, who=tenant)).fetchall()), None)


def make_row(found: psycopg.Connection, table: Table, tenant: UUID) -> str:
    """The smallest row that the table takes: every column that must hold something holds some value of its type."""
    given = {table.column: str(tenant)}
    if table.partition_key:
        given[table.partition_key] = (table.bound or "00000000-0000-0000-0000-") + uuid4().hex[:12]
    columns = found.execute(
        "SELECT attname, format_type(atttypid, atttypmod), format_type(atttypid, NULL) FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef "
        "AND attidentity = '' AND attgenerated = ''",
        [table.name],
    ).fetchall()
    values = {
        name: SQL("CAST({} AS {})").format(
            Literal(given[name]) if name in given else SQL(VALUES.get(short, f"'no value known for {short}'")),
            SQL(full),
        )
        for name, full, short in columns
    }
    made = SQL("INSERT INTO {t} ({}) VALUES ({}) RETURNING to_jsonb({t})::text").format(
        SQL(", ").join(map(Identifier, values)), SQL(", ").join(values.values()), t=Identifier(table.name)
    )
    return found.execute(made).fetchone()[0]


# --- what raw SQL reaches --------------------------------------------------------------------------------------------

REACHING = {
    "select": "SELECT FROM {t} WHERE {whose} = {victim}",
    "lock": "SELECT FROM {t} WHERE {whose} = {victim} FOR UPDATE",
    "update": "UPDATE {t} SET {writable} = {writable} WHERE {whose} = {victim}",
    "delete": "DELETE FROM {t} WHERE {whose} = {victim}",
}
FORGING = {
    "insert": "INSERT INTO {t} SELECT * FROM jsonb_populate_record(NULL::{t}, {row}::jsonb)",
    "give": "UPDATE {t} SET {whose} = {victim} WHERE {whose} = {actor}",
}
SEES_ALL = {"everything": "SELECT FROM {t}"}
WALL, NO_GRANT = "refused by the wall", "refused for want of a grant"
Outcomes = dict[tuple[str, str], int | str]  # table and statement → rows that it reached, or what refused it


def attack(
    found: psycopg.Connection, tables: list[Table], statements: dict[str, str], *, actor: UUID, victim: UUID
) -> Outcomes:
    """Try every statement on every table, and undo each at once."""
    return {
        (table.name, name): outcome(found, table.sql(text, actor=actor, victim=victim, row=table.row))
        for table in tables
        for name, text in statements.items()
    }


def outcome(found: psycopg.Connection, statement: Composed) -> int | str:
    try:
        with found.transaction(force_rollback=True):
            return found.execute(statement).rowcount
    except InsufficientPrivilege as error:
        return WALL if "row-level security" in str(error) else NO_GRANT
    except psycopg.Error as error:
        return type(error).__name__


def but(outcomes: Outcomes, *harmless: int | str) -> Outcomes:
    return {tried: reached for tried, reached in outcomes.items() if reached not in harmless}


def raw() -> psycopg.Connection:
    """The application's own connection, below Django."""
    connection.ensure_connection()
    return connection.connection


def act_with_every_grant(admin: psycopg.Connection, tenant: UUID | str) -> psycopg.Connection:
    """The application's role with every grant there is, partitions included: nothing is left but the policies."""
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {APP}")
    admin.execute(f"SET LOCAL ROLE {APP}")
    admin.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant)])
    return admin


def test_raw_sql_as_a_rival_reaches_and_forges_no_row_of_any_table(tables, company, rival):
    with acting_for(rival.id):
        reached = attack(raw(), tables, REACHING, actor=rival.id, victim=company.id)
        forged = attack(raw(), tables, FORGING, actor=rival.id, victim=company.id)
    assert but(reached, 0, NO_GRANT) == {}
    assert but(forged, WALL, NO_GRANT) == {}
    assert [table.name for table in tables if not table.is_partition and reached[table.name, "select"] != 0] == []


def test_the_policies_alone_hold_a_rival_back_from_every_table_and_partition(admin, tables, company, rival):
    acting = act_with_every_grant(admin, rival.id)
    assert but(attack(acting, tables, REACHING, actor=rival.id, victim=company.id), 0) == {}
    assert but(attack(acting, tables, FORGING, actor=rival.id, victim=company.id), WALL) == {}


def test_the_same_statements_reach_the_companys_own_row_in_every_table(admin, tables, company, rival):
    """Or the tests beside this one would pass on empty tables, or on a wall without a door."""
    with acting_for(company.id):
        reached = attack(raw(), tables, REACHING, actor=company.id, victim=company.id)
    assert [table.name for table in tables if not table.is_partition and not reached[table.name, "select"]] == []
    acting = act_with_every_grant(admin, company.id)
    tried = attack(acting, tables, REACHING | FORGING, actor=company.id, victim=company.id)
    refused = {name for name, reached in tried.items() if isinstance(reached, str) or reached == 0}
    assert refused == {(table.name, "insert") for table in tables}
    assert {tried[name] for name in refused} == {"UniqueViolation"}


@pytest.mark.parametrize(
    ("hole", "reaching", "forging"),
    [
        (f"TO {APP} USING (true)", {"select", "lock", "update", "delete"}, {"insert", "give"}),
        ("FOR SELECT USING (true)", {"select"}, set()),
        (f"FOR INSERT TO {APP} WITH CHECK (true)", set(), {"insert"}),
    ],
)
def test_a_policy_too_many_on_one_table_is_reached_through(admin, tables, company, rival, hole, reaching, forging):
    """Or the statements above would be of no use against the very thing that they look for."""
    admin.execute(f"CREATE POLICY hole ON training_adapter {hole}")
    acting = act_with_every_grant(admin, rival.id)
    through = but(attack(acting, tables, REACHING, actor=rival.id, victim=company.id), 0)
    forged = but(attack(acting, tables, FORGING, actor=rival.id, victim=company.id), WALL)
    assert set(through) == {("training_adapter", name) for name in reaching}
    assert set(forged) == {("training_adapter", name) for name in forging}


def test_no_tenant_in_force_means_no_row_of_any_table(admin, tables, company):
    connection.close()  # so that no setting was ever made on the next one
    never_set = attack(raw(), tables, REACHING | SEES_ALL, actor=company.id, victim=company.id)
    with acting_for(company.id):
        assert but(attack(raw(), tables, SEES_ALL, actor=company.id, victim=company.id), NO_GRANT) != {}
    with transaction.atomic():
        set_before = attack(raw(), tables, REACHING | SEES_ALL, actor=company.id, victim=company.id)
        forged = attack(raw(), tables, {"insert": FORGING["insert"]}, actor=company.id, victim=company.id)
    assert but(never_set, 0, NO_GRANT) == but(set_before, 0, NO_GRANT) == but(forged, WALL, NO_GRANT) == {}
    acting = act_with_every_grant(admin, "")
    assert but(attack(acting, tables, REACHING | SEES_ALL, actor=company.id, victim=company.id), 0) == {}


# --- what the catalogue says -----------------------------------------------------------------------------------------


def find_holes(admin: psycopg.Connection) -> list[str]:
    """Whatever the catalogue lets the roles do on tenants' tables beyond what the project's own wall says."""
    tables = {table.name: table for table in find_tables(admin)}
    return sorted([*holes_in_policies(admin, tables), *holes_in_grants(admin, tables), *holes_in_walls(admin, tables)])


def as_the_wall_writes_it(admin: psycopg.Connection, column: str) -> str:
    """The condition of a tenant's policy, from the project's own function by way of the catalogue."""
    with admin.transaction(force_rollback=True):
        admin.execute(f"CREATE TABLE wall_probe ({column} uuid)")
        admin.execute(wall("wall_probe", column=column).sql)
        found = "SELECT qual, with_check FROM pg_policies WHERE tablename = 'wall_probe'"
        ((using, check),) = admin.execute(found).fetchall()
    assert using == check
    assert using.startswith(f"({column} = ( SELECT (NULLIF(current_setting('app.tenant'::text, true), ''")
    return using


def holes_in_policies(admin: psycopg.Connection, tables: dict[str, Table]) -> Iterator[str]:
    """A policy that is neither the wall nor the door's; and a table that has no wall."""
    rights = {column: as_the_wall_writes_it(admin, column) for column in {t.column for t in tables.values()}}
    walled = set[str]()
    for name, policy, roles, command, using, check in admin.execute(
        "SELECT tablename, policyname, roles::text[], cmd, qual, coalesce(with_check, qual) FROM pg_policies"
    ).fetchall():
        right = rights[tables[name].column] if name in tables else None
        if (roles, command, using, check) == ([APP], "ALL", right, right):
            walled.add(name)
        elif (roles, command, name in OPEN_TO_THE_DOOR) != ([DOOR], "SELECT", True):
            yield f"{name}: policy {policy} to {roles} for {command} using {using} with check {check}"
    yield from (f"{name}: no wall" for name in tables.keys() - walled)


def holes_in_grants(admin: psycopg.Connection, tables: dict[str, Table]) -> Iterator[str]:
    """A grant that no policy watches (TRUNCATE, REFERENCES), on a partition, or to somebody else."""
    rows = {"SELECT", "INSERT", "UPDATE", "DELETE"}
    for name, grantee, privilege in admin.execute(
        "SELECT c.relname, g.grantee::regrole::text, g.privilege_type FROM pg_class c "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL "
        "CROSS JOIN LATERAL (SELECT * FROM aclexplode(c.relacl) UNION SELECT * FROM aclexplode(a.attacl)) g "
        "WHERE c.relname = ANY(%s) AND c.relnamespace = 'public'::regnamespace",
        [list(tables)],
    ).fetchall():
        allowed = {OWNER: {privilege}, APP: rows}.get(grantee, set())
        if grantee == DOOR and name in OPEN_TO_THE_DOOR:
            allowed = {"SELECT"}
        if privilege not in allowed or (grantee == APP and tables[name].is_partition):
            yield f"{name}: {privilege} granted to {grantee}"


def holes_in_walls(admin: psycopg.Connection, tables: dict[str, Table]) -> Iterator[str]:
    """A table that is not forced, not the owner's, or of a kind that no policy watches; one of nobody's we know."""
    for name, kind, forced, owner, options, schema in admin.execute(
        "SELECT relname, relkind::text, relrowsecurity AND relforcerowsecurity, relowner::regrole::text, "
        "coalesce(reloptions, '{}'), nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND nspname !~ '^pg_' AND nspname <> 'information_schema'"
    ).fetchall():
        if schema != "public":
            yield f"{name}: outside the one schema that is looked at"
        if name in tables and not forced:
            yield f"{name}: row-level security is not forced"
        if owner != OWNER:
            yield f"{name}: owned by {owner}"
        if kind in "mf" or (kind == "v" and "security_invoker=true" not in options):
            yield f"{name}: a view past the wall"
        if kind in "rp" and name not in tables.keys() | NOBODYS:
            yield f"{name}: neither a tenant's nor named among those that are nobody's"


def test_the_catalogue_lets_nobody_past_the_wall_of_any_table(admin):
    assert find_holes(admin) == []


def test_every_tenant_owned_model_is_among_the_tables_that_are_tried(admin):
    owned = {model._meta.db_table for model in apps.get_models() if issubclass(model, TenantOwned)}
    found = {table.name for table in find_tables(admin)}
    assert (owned | {Tenant._meta.db_table}) - found == set()
    assert len([table for table in find_tables(admin) if table.is_partition]) >= 10


def test_every_table_of_the_doors_list_has_its_policy(admin):
    found = admin.execute("SELECT tablename FROM pg_policies WHERE %s = ANY(roles)", [DOOR]).fetchall()
    assert {name for (name,) in found} == OPEN_TO_THE_DOOR


def test_the_door_reads_that_a_record_was_parked_and_not_the_record(admin):
    admin.execute(f"SET LOCAL ROLE {DOOR}")
    admin.execute("SELECT id, tenant_id, reason, parked_at FROM ingestion_parkedrecord")
    with pytest.raises(InsufficientPrivilege):
        admin.execute("SELECT record FROM ingestion_parkedrecord")


def test_the_roles_cannot_become_another_or_pass_row_level_security(admin):
    roles = admin.execute(
        "SELECT rolname FROM pg_roles r WHERE rolname = ANY(%s) AND NOT rolsuper AND NOT rolbypassrls "
        "AND NOT rolcreaterole AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid)",
        [[APP, DOOR]],
    ).fetchall()
    assert sorted(name for (name,) in roles) == [APP, DOOR]


LATE = "FOR VALUES FROM ('ffffffff-ffff-7000-8000-000000000000') TO (MAXVALUE)"


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        (f"CREATE POLICY hole ON training_adapter TO {APP} USING (true)", "training_adapter"),
        ("CREATE POLICY hole ON training_adapter USING (true)", "training_adapter"),
        (f"CREATE POLICY hole ON tenants_tenant FOR SELECT TO {APP} USING (id IS NOT NULL)", "tenants_tenant"),
        (f"CREATE POLICY hole ON serving_audit FOR INSERT TO {APP} WITH CHECK (true)", "serving_audit"),
        (f"CREATE POLICY hole ON serving_audit TO {OWNER} USING (true)", "serving_audit"),
        ("ALTER POLICY tenant_wall ON serving_audit WITH CHECK (true)", "serving_audit"),
        ("ALTER POLICY tenant_wall ON ingestion_call_other USING (true)", "ingestion_call_other"),
        ("DROP POLICY tenant_wall ON billing_invoice", "billing_invoice"),
        (f"CREATE POLICY door ON ingestion_payload FOR SELECT TO {DOOR} USING (true)", "ingestion_payload"),
        (f"CREATE POLICY hole ON tenants_apikey TO {DOOR} USING (true)", "tenants_apikey"),
        (f"CREATE POLICY hole ON tenants_apikey FOR SELECT TO {DOOR}, {APP} USING (true)", "tenants_apikey"),
        (f"GRANT UPDATE (name) ON tenants_tenant TO {DOOR}", "tenants_tenant"),
        (f"GRANT SELECT ON ingestion_example TO {DOOR}", "ingestion_example"),
        (f"GRANT TRUNCATE ON ingestion_example TO {APP}", "ingestion_example"),
        (f"GRANT SELECT ON ingestion_payload_other TO {APP}", "ingestion_payload_other"),
        ("GRANT SELECT ON serving_rollout TO PUBLIC", "serving_rollout"),
        ("ALTER TABLE serving_rollout NO FORCE ROW LEVEL SECURITY", "serving_rollout"),
        ("ALTER TABLE serving_rollout DISABLE ROW LEVEL SECURITY", "serving_rollout"),
        (f"RESET ROLE; ALTER TABLE serving_rollout OWNER TO {APP}", "serving_rollout"),
        ("CREATE TABLE ingestion_note (id uuid, tenant_id uuid)", "ingestion_note"),
        ("CREATE TABLE ingestion_note (id uuid, owned_by uuid)", "ingestion_note"),
        ("CREATE VIEW ingestion_note AS SELECT * FROM ingestion_call", "ingestion_note"),
        ("CREATE MATERIALIZED VIEW ingestion_note AS SELECT * FROM ingestion_call", "ingestion_note"),
        (f"CREATE TABLE ingestion_call_late PARTITION OF ingestion_call {LATE}", "ingestion_call_late"),
        (f"RESET ROLE; CREATE SCHEMA aside AUTHORIZATION {OWNER} CREATE TABLE note (tenant_id uuid)", "note"),
    ],
)
def test_a_hole_made_in_one_table_is_reported(admin, statement, table):
    admin.execute(f"SET LOCAL ROLE {OWNER}")  # as a migration would make it
    admin.execute(statement)
    admin.execute("RESET ROLE")
    assert {hole.split(":")[0] for hole in find_holes(admin)} == {table}
