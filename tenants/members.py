"""Who belongs to a tenant: people are added, given another role or password, and removed, each with its event."""

from datetime import datetime

from tenants.core.roles import Role
from tenants.events import record_event
from tenants.models import Membership, User


class UnableToChangeMembers(Exception):
    """The change would break a rule; the message says which, for people."""


def add_member(*, email: str, role: str, password: str, actor: str, now: datetime) -> Membership:
    """Make an account and its membership in the tenant in force. Raises UnableToChangeMembers.

    One person belongs to one tenant: an address that has an account anywhere is refused.
    """
    if role not in set(Role):
        raise UnableToChangeMembers("no such role")
    if User.objects.filter(email=email.lower()).exists():
        raise UnableToChangeMembers("this e-mail address has an account already")
    user = User.objects.create_user(email, password)
    membership: Membership = Membership.objects.create(user=user, role=role)
    record_event("member.added", now=now, actor=actor, subject_id=user.pk, role=role)
    return membership


def change_role(membership: Membership, *, role: str, actor: str, now: datetime) -> None:
    """Give a member another role. Raises UnableToChangeMembers where no owner would be left."""
    if role not in set(Role):
        raise UnableToChangeMembers("no such role")
    if role != Role.OWNER:
        _keep_an_owner(membership)
    Membership.objects.filter(id=membership.id).update(role=role)
    record_event("member.role_changed", now=now, actor=actor, subject_id=membership.user_id, role=role)


def remove_member(membership: Membership, *, actor: str, now: datetime) -> None:
    """Take a member out; the account can no longer log in. Raises UnableToChangeMembers."""
    _keep_an_owner(membership)
    Membership.objects.filter(id=membership.id).delete()
    User.objects.filter(id=membership.user_id, is_staff=False).update(is_active=False)
    record_event("member.removed", now=now, actor=actor, subject_id=membership.user_id, role=membership.role)


def change_password(user: User, *, password: str, actor: str, now: datetime) -> None:
    """Give a person of the tenant in force another password, which ends their other sessions."""
    user.set_password(password)
    user.save(update_fields=["password"])
    record_event("member.password_changed", now=now, actor=actor, subject_id=user.pk)


def _keep_an_owner(membership: Membership) -> None:
    # The rows are locked: two owners who remove each other at once must not both succeed.
    owners = list(Membership.objects.select_for_update().filter(role=Role.OWNER).values_list("id", flat=True))
    if owners == [membership.id]:
        raise UnableToChangeMembers("a tenant keeps at least one owner")
