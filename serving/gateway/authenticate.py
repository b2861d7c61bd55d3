"""Says who is calling, by the full SHA-256 of the key they sent, or refuses."""

from collections.abc import Mapping

from ingestion.core.calls import Dialect, Provider, Unshown
from serving.core.snapshot import KeyEntry, Snapshot, TenantEntry
from serving.gateway.refusals import invalid_key, no_teacher, suspended
from serving.gateway.wire import Request
from tenants.core.keys import digest_key


class Caller(Unshown, frozen=True, kw_only=True):
    """A key in force and its tenant. `wants_teacher` and `wants_no_log` are headers of a key that may override."""

    key: KeyEntry
    tenant: TenantEntry
    wants_teacher: bool = False
    wants_no_log: bool = False


def authenticate(request: Request, snapshot: Snapshot) -> Caller:
    """Find the caller. Raises Refused: 401 for no, an unknown or a revoked key; 403 for a suspended tenant, and for one
    without a credential at the provider.
    """
    headers = request.fields
    entry = snapshot.keys.get(digest_key(_sent_key(headers, request)))
    if entry is None:
        raise invalid_key()
    tenant = snapshot.tenants.get(entry.tenant_id)
    if tenant is None or not tenant.active:
        raise suspended()
    if not tenant.providers.get(request.provider):
        raise no_teacher(request.provider)
    return Caller(
        key=entry,
        tenant=tenant,
        wants_teacher=entry.may_override and headers.get(b"x-understudy-arm") == b"teacher",
        wants_no_log=entry.may_override and headers.get(b"x-understudy-log") == b"off",
    )


def _sent_key(headers: Mapping[bytes, bytes], request: Request) -> str:
    if request.dialect is Dialect.ANTHROPIC and (sent := headers.get(b"x-api-key")):
        return sent.decode("latin-1")
    if request.provider == Provider.AZURE and (sent := headers.get(b"api-key")):
        return sent.decode("latin-1")
    scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer" or not sent:
        raise invalid_key()
    return sent.strip().decode("latin-1")
