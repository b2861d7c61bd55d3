"""The operator's view of all tenants, over the door's role and for operators alone.

All of it is read-only but what a tenant is to us: whether it is served, and on what share of its saving.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from tenants.models import (
    ApiKey,
    Event,
    Membership,
    ProviderCredential,
    Tenant,
    User,
    WebhookDelivery,
)
from tenants.standing import agree_on_share, reinstate, suspend


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows the named columns and changes nothing. Sealed columns and digests are never among them."""

    columns: tuple[str, ...] = ()
    actions: tuple[str, ...] | None = None
    list_per_page = 50
    show_full_result_count = False

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        """The named columns."""
        return self.columns

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """The named columns."""
        return self.columns

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """All of them: ids are shown as ids, so that no reference is followed to a table that has no door."""
        return self.columns

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """Rows of all tenants."""
        found: QuerySet[Any] = self.model.across_tenants.only(*{"pk", *self.columns})
        return found

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Operators alone."""
        return bool(request.user.is_active and request.user.is_superuser)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Operators alone."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Nobody."""
        return False


class ReadOnlyShared(ReadOnly):
    """The same for a table that belongs to no tenant."""

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Any]":
        """All rows."""
        found: QuerySet[Any] = self.model._default_manager.only(*{"pk", *self.columns})
        return found


@admin.register(Tenant)
class TenantAdmin(ReadOnly):
    """Companies. An operator suspends and reinstates them, and states the share of the saving that was agreed on."""

    columns = ("id", "name", "status", "approval", "log_content", "ask_usage", "savings_share", "created_at")
    search_fields = ("name",)
    list_filter = ("status",)
    actions = ("suspend_chosen", "reinstate_chosen")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """All but the share."""
        return tuple(column for column in self.columns if column != "savings_share")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Operators alone."""
        return self.has_view_permission(request)

    def save_model(self, request: HttpRequest, obj: Tenant, form: Any, change: bool) -> None:
        """Fix the share, with its event in the tenant's own log."""
        if "savings_share" in form.changed_data:
            agree_on_share(obj.id, share=obj.savings_share, actor=_operator(request), now=datetime.now(UTC))

    @admin.action(description="Suspend: refuse calls and changes")
    def suspend_chosen(self, request: HttpRequest, chosen: "QuerySet[Tenant]") -> None:
        """Say how many were moved."""
        self._move_chosen(request, chosen, suspend, "suspended")

    @admin.action(description="Reinstate")
    def reinstate_chosen(self, request: HttpRequest, chosen: "QuerySet[Tenant]") -> None:
        """Say how many were moved."""
        self._move_chosen(request, chosen, reinstate, "reinstated")

    def _move_chosen(
        self, request: HttpRequest, chosen: "QuerySet[Tenant]", move: Callable[..., bool], done: str
    ) -> None:
        ids: list[UUID] = list(chosen.values_list("id", flat=True))
        moved = sum(move(tenant_id, actor=_operator(request), now=datetime.now(UTC)) for tenant_id in ids)
        self.message_user(request, f"{moved} of {len(ids)} {done}.")


@admin.register(User)
class UserAdmin(ReadOnlyShared):
    """People."""

    columns = ("id", "email", "is_active", "is_staff", "last_login")
    search_fields = ("email",)


@admin.register(Membership)
class MembershipAdmin(ReadOnly):
    """Who belongs where."""

    columns = ("id", "tenant_id", "user_id", "role")


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnly):
    """Keys by their prefix."""

    columns = ("id", "tenant_id", "name", "prefix", "scope", "may_override", "created_at", "revoked_at")
    search_fields = ("prefix",)


@admin.register(ProviderCredential)
class ProviderCredentialAdmin(ReadOnly):
    """Providers and the stance on their terms."""

    columns = ("id", "tenant_id", "provider", "base_url", "stance", "stance_at")


@admin.register(Event)
class EventAdmin(ReadOnly):
    """What happened."""

    columns = ("id", "tenant_id", "kind", "at", "actor", "subject_id", "data")
    list_filter = ("kind",)


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnly):
    """Deliveries."""

    columns = ("id", "tenant_id", "endpoint_id", "event_id", "status", "attempts", "due_at", "last_status")
    list_filter = ("status",)


def _operator(request: HttpRequest) -> str:
    return f"operator:{request.user.pk}"
