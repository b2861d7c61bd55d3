"""Opens and makes the keys that seal a tenant's values; the master secret is the process's own."""

from uuid import UUID

from django.conf import settings

from tenants.core.sealing import derive_key, new_key, open_sealed, seal


def seal_new_data_key(tenant_id: UUID) -> bytes:
    """A fresh data key, sealed under the master secret."""
    return seal(_master(), new_key(), context=_context(tenant_id))


def open_data_key(tenant_id: UUID, sealed: bytes) -> bytes:
    """The tenant's data key. Raises UnableToOpen if the master secret is another."""
    return open_sealed(_master(), bytes(sealed), context=_context(tenant_id))


def purpose_key(data_key: bytes, purpose: str) -> bytes:
    """A key for one purpose below a tenant's data key: a value sealed for one never opens for another."""
    return derive_key(data_key, purpose=purpose)


def _master() -> bytes:
    return derive_key(settings.SECRET_KEY.encode(), purpose="data-keys")


def _context(tenant_id: UUID) -> str:
    return f"{tenant_id}/tenants_tenant/data_key/{tenant_id}/1"
