"""Signing up, keys, credentials: what a tenant's people do to their own tenant."""

import os
from datetime import datetime
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import RestrictedError

from tenants.core.keys import ENTROPY_BYTES, MintedKey, mint_key
from tenants.core.sealing import open_sealed, seal
from tenants.credentials import AZURE, PROVIDERS
from tenants.data_keys import open_data_key, purpose_key, seal_new_data_key
from tenants.events import record_event
from tenants.models import ApiKey, Membership, ProviderCredential, Tenant, User
from tenants.scope import acting_for, tenant_in_force


class UnableToSignUp(Exception):
    """The e-mail address already has an account."""


def sign_up(*, company: str, email: str, password: str, now: datetime) -> tuple[Tenant, User]:
    """Make a tenant and its owner, all or nothing. Raises UnableToSignUp."""
    tenant_id = uuid4()
    with acting_for(tenant_id):
        if User.objects.filter(email=email.lower()).exists():
            raise UnableToSignUp("this e-mail address has an account already")
        user = User.objects.create_user(email, password)
        tenant = Tenant(id=tenant_id, name=company, data_key_sealed=seal_new_data_key(tenant_id), created_at=now)
        tenant.save(force_insert=True)
        Membership.objects.create(user=user, role=Membership.Role.OWNER)
        record_event("tenant.signed_up", now=now, actor=f"user:{user.pk}", subject_id=tenant_id)
    return tenant, user


def create_key(
    *, name: str, may_override: bool, actor: str, now: datetime, scope: str = ApiKey.Scope.CALLS
) -> tuple[ApiKey, MintedKey]:
    """Make an API key for the tenant in force; the minted half is to be shown once."""
    minted = mint_key(os.urandom(ENTROPY_BYTES))
    facts = {"name": name, "scope": scope, "may_override": may_override, "created_at": now}
    key = ApiKey.objects.create(prefix=minted.prefix, digest=minted.digest, **facts)
    record_event("key.created", now=now, actor=actor, subject_id=key.id, prefix=minted.prefix, scope=scope)
    return key, minted


def revoke_key(key: ApiKey, *, actor: str, now: datetime) -> bool:
    """Take a key out of force. False if it already was."""
    with transaction.atomic():
        revoked = key.revoke(now)
        if revoked:
            record_event("key.revoked", now=now, actor=actor, subject_id=key.id, prefix=key.prefix)
    return revoked


MOST_CREDENTIALS = 50  # of a tenant: each has a lane of its own in each gateway


class UnableToStore(Exception):
    """Such a credential cannot be kept; the message says why, for people."""


class UnableToRemove(Exception):
    """The credential is in use; the message says by what, for people."""


def store_credential(
    *, provider: str, base_url: str, secret: str, stance: str, actor: str, now: datetime, name: str = ""
) -> ProviderCredential:
    """Keep a key of the tenant's at a provider, sealed, replacing an older one of that name, which is the provider's
    where none is given. Records the stance on its terms. Raises UnableToStore.
    """
    tenant_id, name = tenant_in_force(), name or provider
    known = ProviderCredential.objects.filter(name=name).first()
    if known is None and ProviderCredential.objects.count() >= MOST_CREDENTIALS:
        raise UnableToStore(f"there are {MOST_CREDENTIALS} keys at providers already: forget one first")
    kept = known or ProviderCredential(provider=provider, name=name)
    if name in PROVIDERS and name != provider:
        raise UnableToStore(f"“{name}” is what the usual key at {name} is called")
    if kept.provider != provider:
        raise UnableToStore(f"“{name}” is the name of a key at another provider")
    base_url = base_url.removesuffix("/openai") if provider == AZURE else base_url  # which its paths begin with
    kept.base_url, kept.hint, kept.stance, kept.stance_at = base_url, secret[-4:], stance, now
    kept.secret_sealed = seal(_credential_key(tenant_id), secret.encode(), context=_context(tenant_id, kept.id))
    kept.save()
    facts = {"provider": provider, "name": name, "stance": stance}
    record_event("credential.stored", now=now, actor=actor, subject_id=kept.id, **facts)
    return kept


def remove_credential(credential: ProviderCredential, *, actor: str, now: datetime) -> bool:
    """Forget a key at a provider. What was learnt under it stays; its calls enter no further dataset. False if it was
    gone already. Raises UnableToRemove while a model route leads to it.
    """
    found = ProviderCredential.objects.filter(id=credential.id)
    try:
        list(found.select_for_update())  # a route that is being set to it is there, or waits until it is gone
        removed, _ = found.delete()
    except RestrictedError as error:
        raise UnableToRemove("a model route leads to this key: change the route first") from error
    if removed:
        facts = {"provider": credential.provider, "name": credential.name}
        record_event("credential.removed", now=now, actor=actor, subject_id=credential.id, **facts)
    return bool(removed)


def state_stance(credential: ProviderCredential, *, stance: str, actor: str, now: datetime) -> None:
    """Record what the provider's terms let us do from now on. Pairs keep the stance they came in under."""
    ProviderCredential.objects.filter(id=credential.id).update(stance=stance, stance_at=now)
    record_event("credential.stance_stated", now=now, actor=actor, subject_id=credential.id, stance=stance)


def open_credential(credential: ProviderCredential, data_key: bytes) -> str:
    """The provider key in the clear, for the snapshot and the teacher's client only."""
    key = purpose_key(data_key, "credentials")
    context = _context(credential.tenant_id, credential.id)
    return open_sealed(key, bytes(credential.secret_sealed), context=context).decode()


def data_key_in_force() -> bytes:
    """The data key of the tenant in force."""
    tenant = Tenant.objects.get()
    return open_data_key(tenant.id, bytes(tenant.data_key_sealed))


def _credential_key(tenant_id: UUID) -> bytes:
    return purpose_key(data_key_in_force(), "credentials")


def _context(tenant_id: UUID, credential_id: UUID) -> str:
    return f"{tenant_id}/tenants_providercredential/secret/{credential_id}/1"
