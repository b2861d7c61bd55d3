"""Migrations run as the tables' owner and nowhere else; the application's two roles own nothing."""

from typing import Any


class OneSchema:
    """One schema behind three connections: only `owner` may change it."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        """Whether a migration may run over connection `db`."""
        return db == "owner"

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool | None:
        """Rows read through the door relate to rows read in a tenant's scope: it is the same database."""
        return True
