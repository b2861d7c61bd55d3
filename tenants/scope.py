"""The one door to a tenant's rows: `acting_for(tenant)`, and the managers that stay shut without it.

Two walls stand behind it. In Python, `objects` of a tenant-owned model refuses to build a queryset while no tenant is
in force. In PostgreSQL, row-level security compares every row with the setting that only this door sets, for the
length of one transaction. What must see across tenants says so by name: `across_tenants`, over the door's own role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

from django.db import connection, models, transaction

Owned = TypeVar("Owned", bound=models.Model)

_in_force: ContextVar[UUID | None] = ContextVar("tenant_in_force", default=None)


class NoTenantInForce(RuntimeError):
    """A tenant's rows were asked for outside `acting_for`."""


class AnotherTenantInForce(RuntimeError):
    """`acting_for` was entered for one tenant inside another's."""


def tenant_in_force() -> UUID:
    """The id of the tenant that is acted for. Raises NoTenantInForce."""
    tenant_id = _in_force.get()
    if tenant_id is None:
        raise NoTenantInForce("this needs acting_for(tenant)")
    return tenant_id


@contextmanager
def acting_for(tenant_id: UUID) -> Iterator[None]:
    """Open a transaction in which exactly this tenant's rows exist, for reads as for writes.

    Enter it as often as a use case needs, each time briefly: no network call inside. Entering it again for the same
    tenant joins the transaction. Raises AnotherTenantInForce.
    """
    already = _in_force.get()
    if already is not None and already != tenant_id:
        raise AnotherTenantInForce("two tenants at once")
    token = _in_force.set(tenant_id)
    try:
        with transaction.atomic(using="default"):
            if already is None:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT set_config('app.tenant', %s, true)", [str(tenant_id)])
            yield
    finally:
        _in_force.reset(token)


class TenantManager(models.Manager[Owned]):
    """Rows of the tenant in force; refuses to build a queryset when there is none."""

    def get_queryset(self) -> models.QuerySet[Owned]:
        """Raises NoTenantInForce."""
        return super().get_queryset().filter(**{self._tenant_path(): tenant_in_force()})

    def _tenant_path(self) -> str:
        return "id" if self.model._meta.label == "tenants.Tenant" else "tenant_id"


class AcrossTenantsManager(models.Manager[Owned]):
    """Rows of all tenants, read over the door's role. Allowed in a short list of files that a test holds."""

    def get_queryset(self) -> models.QuerySet[Owned]:
        """A queryset on the `door` connection; PostgreSQL shows only the tables with a policy for it."""
        return super().get_queryset().using("door")


class TenantOwned(models.Model):
    """A row that belongs to one tenant. Every subclass gets both managers and (tenant, id) as a key to point at."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="+", db_index=False)

    objects: ClassVar[TenantManager[Self]] = TenantManager()
    across_tenants: ClassVar[AcrossTenantsManager[Self]] = AcrossTenantsManager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Fill in the tenant in force, and refuse a row of another."""
        named: UUID | None = self.tenant_id  # None until somebody says, whatever the column allows
        if named is None:
            self.tenant_id = tenant_in_force()
        elif named != tenant_in_force():
            raise AnotherTenantInForce("a row of another tenant")
        super().save(*args, **kwargs)
