"""The second wall, as migration operations: row-level security, grants, and foreign keys that cannot leave a tenant.

Foreign-key and unique checks bypass row-level security, so a reference between tenant-owned tables is the pair
(tenant_id, id), and every tenant-owned table has that pair as a key.
"""

from collections.abc import Iterable
from typing import Final

from django.db.migrations.operations import RunSQL

# `nullif`, because the setting is '' and not NULL once a transaction that set it has ended; `(select …)`, so that it
# is computed once a query and not once a row.
TENANT: Final = "(SELECT nullif(current_setting('app.tenant', true), '')::uuid)"
EVERYTHING: Final = "SELECT, INSERT, UPDATE, DELETE"
APPEND_ONLY: Final = "SELECT, INSERT"


def wall(
    table: str, *, column: str = "tenant_id", grants: str = EVERYTHING, door: bool = False, door_reads: str = ""
) -> RunSQL:
    """Force row-level security on a table; `door=True` lets the cross-tenant role read it, or some columns of it."""
    mine = f"{column} = {TENANT}"
    statements = [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_wall ON {table} TO understudy_app USING ({mine}) WITH CHECK ({mine})",
        f"GRANT {grants} ON {table} TO understudy_app",
    ]
    if door:
        statements += [
            f"CREATE POLICY door ON {table} FOR SELECT TO understudy_door USING (true)",
            f"GRANT SELECT{f' ({door_reads})' if door_reads else ''} ON {table} TO understudy_door",
        ]
    return RunSQL(_joined(statements), RunSQL.noop)


def shared(table: str, *, grants: str = EVERYTHING) -> RunSQL:
    """Grant both roles a table that belongs to no tenant (users, sessions, prices)."""
    return RunSQL(
        _joined([f"GRANT {grants} ON {table} TO understudy_app", f"GRANT SELECT ON {table} TO understudy_door"]),
        RunSQL.noop,
    )


def keyed(table: str) -> RunSQL:
    """Make (tenant_id, id) a key that others may point at."""
    return RunSQL(f"ALTER TABLE {table} ADD CONSTRAINT {table}_tenant_key UNIQUE (tenant_id, id)", RunSQL.noop)


def points_at(table: str, column: str, target: str, *, on_delete: str = "CASCADE") -> RunSQL:
    """A foreign key that carries the tenant along. Its Django field has `db_constraint=False`."""
    return RunSQL(
        f"ALTER TABLE {table} ADD CONSTRAINT {table}_{column}_tenant_fk FOREIGN KEY (tenant_id, {column}) "
        f"REFERENCES {target} (tenant_id, id) ON DELETE {on_delete} DEFERRABLE INITIALLY DEFERRED",
        RunSQL.noop,
    )


def sequences(table: str) -> RunSQL:
    """Let the application draw ids from the table's identity sequence."""
    return RunSQL(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO understudy_app -- {table}", RunSQL.noop)


def _joined(statements: Iterable[str]) -> str:
    return ";\n".join(statements)
