"""Who may change what: one table for the portal and the API, so that neither is a way round the other."""

from enum import StrEnum


class Role(StrEnum):
    """What a person is in a tenant. The words are those of `Membership.role`."""

    OWNER = "owner"
    ENGINEER = "engineer"
    FINANCE = "finance"
    SECURITY = "security"


class Right(StrEnum):
    """One thing that takes a role. Reading facts and figures takes none: every member may."""

    STEER = "steer"  # state a promise, approve, resume
    STOP = "stop"  # hold, back to the teacher
    READ_BODIES = "read_bodies"  # what was asked and answered
    ERASE = "erase"  # have a person forgotten
    MINT_KEYS = "mint_keys"
    REVOKE_KEYS = "revoke_keys"
    MANAGE_WEBHOOKS = "manage_webhooks"
    MANAGE_PROVIDERS = "manage_providers"
    MANAGE_LIMITS = "manage_limits"  # of requests, tokens and money
    MANAGE_TENANT = "manage_tenant"  # name, approval, content logging, members


RIGHTS: dict[Role, frozenset[Right]] = {
    Role.OWNER: frozenset(Right),
    Role.ENGINEER: frozenset(
        {
            *(Right.STEER, Right.STOP, Right.READ_BODIES, Right.MINT_KEYS, Right.REVOKE_KEYS),
            *(Right.MANAGE_WEBHOOKS, Right.MANAGE_LIMITS),
        }
    ),
    Role.FINANCE: frozenset({Right.MANAGE_LIMITS}),
    Role.SECURITY: frozenset({Right.STOP, Right.READ_BODIES, Right.ERASE, Right.REVOKE_KEYS, Right.MANAGE_PROVIDERS}),
}

# A key of the API reads figures and steers, and no more: a leaked one can neither make itself a successor nor have
# events sent elsewhere, lock the tenant's other keys out, or read what was asked.
KEY_RIGHTS: frozenset[Right] = frozenset({Right.STEER, Right.STOP})

# What is left to the people of a suspended tenant: seeing what is theirs, and forgetting whom they must forget.
KEPT: frozenset[Right] = frozenset({Right.READ_BODIES, Right.ERASE})


def rights_of(role: str, *, suspended: bool) -> frozenset[Right]:
    """What a role may do in a tenant; nothing for a word that is no role."""
    return in_standing(RIGHTS[Role(role)] if role in set(Role) else frozenset(), suspended=suspended)


def in_standing(rights: frozenset[Right], *, suspended: bool) -> frozenset[Right]:
    """What is left of some rights while a tenant is suspended."""
    return rights & KEPT if suspended else rights
