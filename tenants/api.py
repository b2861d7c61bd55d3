"""The API of who and what happened: keys, events, webhooks, preferences; and `TenantView`, in which every view acts."""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.auth import Caller, identify
from tenants.core.roles import Right
from tenants.models import ApiKey, Event, Tenant, WebhookDelivery, WebhookEndpoint
from tenants.preferences import UnableToPrefer, state_preferences
from tenants.provision import create_key, revoke_key
from tenants.scope import acting_for
from tenants.webhook_client import UnableToUseUrl
from tenants.webhooks import create_endpoint, disable_endpoint, enable_endpoint


def utc_now() -> datetime:
    """The clock at this edge."""
    return datetime.now(UTC)


class TenantView(APIView):
    """A view inside `acting_for` the caller's tenant: another's rows are not there, so not-yours is 404 like not-there.

    `needs` is the right that a change takes; a view without one changes nothing.
    """

    needs: ClassVar[Right | None] = None
    caller: Caller
    _scope: ExitStack

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer; the tenant's transaction ends when the answer's data has been read."""
        with ExitStack() as self._scope:
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, check the right, and step into the tenant."""
        super().initial(request, *args, **kwargs)
        self.caller = identify(request)
        changes = request.method not in SAFE_METHODS and hasattr(self, str(request.method).lower())
        if changes and self.needs not in self.caller.rights:
            raise PermissionDenied("the tenant is suspended" if self.caller.suspended else "this takes another role")
        self._scope.enter_context(acting_for(self.caller.tenant_id))

    def handle_exception(self, exc: Exception) -> Response:
        """Render a refusal, and keep nothing of what was written before it."""
        if connection.in_atomic_block:
            transaction.set_rollback(True)
        return super().handle_exception(exc)


class NewestFirst(CursorPagination):
    """Pages by cursor; `limit` up to 200."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 200
    ordering: str | tuple[str, ...] = "-created_at"


class EventPages(NewestFirst):
    """Pages of what has an instant."""

    ordering = ("-at", "-id")


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key as it can be told apart; the key itself is nowhere."""

    class Meta:
        model = ApiKey
        fields = ("id", "name", "prefix", "scope", "may_override", "created_at", "revoked_at")
        read_only_fields = fields


class NewKeySerializer(serializers.Serializer[Any]):
    """What a key is made from."""

    name = serializers.CharField(max_length=80)
    scope = serializers.ChoiceField(choices=ApiKey.Scope.choices, default=ApiKey.Scope.CALLS)
    may_override = serializers.BooleanField(default=False)


class MintedKeySerializer(KeySerializer):
    """A key in the one answer that shows it."""

    plain = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = (*KeySerializer.Meta.fields, "plain")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class KeyList(TenantView, ListAPIView[ApiKey]):
    """The tenant's keys."""

    serializer_class = KeySerializer
    pagination_class = NewestFirst
    needs = Right.MINT_KEYS

    def get_queryset(self) -> QuerySet[ApiKey]:
        """Also the revoked ones."""
        return ApiKey.objects.all()

    @extend_schema(request=NewKeySerializer, responses={201: MintedKeySerializer})
    def post(self, request: Request) -> Response:
        """Make a key. Its `plain` is in this answer and in no other. A person's session may; a key may not."""
        asked = NewKeySerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        key, minted = create_key(**asked.validated_data, actor=self.caller.actor, now=utc_now())
        return Response({**KeySerializer(key).data, "plain": minted.plain}, status=status.HTTP_201_CREATED)


class KeyRevocation(TenantView):
    """Taking a key out of force."""

    needs = Right.REVOKE_KEYS

    @extend_schema(request=None, responses=KeySerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Revoke a key; once is enough, twice is no error. A person's session may; a key may not."""
        key = get_object_or_404(ApiKey.objects.all(), id=id)
        revoke_key(key, actor=self.caller.actor, now=utc_now())
        key.refresh_from_db()
        return Response(KeySerializer(key).data)


class EventSerializer(serializers.ModelSerializer[Event]):
    """Something that happened."""

    class Meta:
        model = Event
        fields = ("id", "kind", "at", "actor", "subject_id", "data")
        read_only_fields = fields


class EventList(TenantView, ListAPIView[Event]):
    """The audit trail."""

    serializer_class = EventSerializer
    pagination_class = EventPages

    def get_queryset(self) -> QuerySet[Event]:
        """Everything, or one kind with `?kind=`."""
        kind = self.request.query_params.get("kind", "")
        found: QuerySet[Event] = Event.objects.all()
        return found.filter(kind=kind) if kind else found


class EndpointSerializer(serializers.ModelSerializer[WebhookEndpoint]):
    """Where events are delivered; the secret was shown when it was made.

    The URL's path, which may hold a secret of the receiver's, is for those who may manage webhooks.
    """

    url = serializers.SerializerMethodField()
    kinds = serializers.ListField(child=serializers.CharField(max_length=60), read_only=True)

    class Meta:
        model = WebhookEndpoint
        fields = ("id", "url", "kinds", "created_at", "disabled_at", "straight_failures")
        read_only_fields = fields

    def get_url(self, endpoint: WebhookEndpoint) -> str:
        """Whole or without its path, by the rights of the view's caller."""
        whole = Right.MANAGE_WEBHOOKS in self.context["view"].caller.rights
        return endpoint.url if whole else endpoint.origin


class NewEndpointSerializer(serializers.Serializer[Any]):
    """What an endpoint is made from."""

    url = serializers.URLField(max_length=500)
    kinds = serializers.ListField(child=serializers.CharField(max_length=60), default=list, max_length=50)


class MadeEndpointSerializer(EndpointSerializer):
    """An endpoint in the one answer that shows its secret."""

    secret = serializers.CharField(read_only=True)

    class Meta(EndpointSerializer.Meta):
        fields = (*EndpointSerializer.Meta.fields, "secret")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class EndpointList(TenantView, ListAPIView[WebhookEndpoint]):
    """The tenant's webhook endpoints."""

    serializer_class = EndpointSerializer
    pagination_class = NewestFirst
    needs = Right.MANAGE_WEBHOOKS

    def get_queryset(self) -> QuerySet[WebhookEndpoint]:
        """Also the disabled ones."""
        return WebhookEndpoint.objects.all()

    @extend_schema(request=NewEndpointSerializer, responses={201: MadeEndpointSerializer})
    def post(self, request: Request) -> Response:
        """Make an endpoint. Its `secret` is in this answer and in no other. A person's session may; a key may not."""
        asked = NewEndpointSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            endpoint, secret = create_endpoint(**asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToUseUrl as error:
            raise serializers.ValidationError({"url": [str(error)]}) from error
        made = self.get_serializer(endpoint).data
        return Response({**made, "secret": secret}, status=status.HTTP_201_CREATED)


class EndpointSwitch(TenantView):
    """Turning an endpoint off and on."""

    needs = Right.MANAGE_WEBHOOKS
    on: ClassVar[bool] = False

    @extend_schema(request=None, responses=EndpointSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Switch an endpoint; what it already is, it stays."""
        endpoint = get_object_or_404(WebhookEndpoint.objects.all(), id=id)
        switch = enable_endpoint if self.on else disable_endpoint
        try:
            switch(endpoint, actor=self.caller.actor, now=utc_now())
        except UnableToUseUrl as error:
            raise serializers.ValidationError({"url": [str(error)]}) from error
        endpoint.refresh_from_db()
        return Response(EndpointSerializer(endpoint, context={"view": self}).data)


class EndpointDisabling(EndpointSwitch):
    """No more deliveries until it is enabled again."""


class EndpointEnabling(EndpointSwitch):
    """Deliveries again, with the failures forgotten."""

    on = True


class DeliverySerializer(serializers.ModelSerializer[WebhookDelivery]):
    """One event to one endpoint."""

    endpoint_id = serializers.UUIDField(read_only=True)
    event_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = WebhookDelivery
        fields = ("id", "endpoint_id", "event_id", "status", "attempts", "due_at", "last_status", "delivered_at")
        read_only_fields = fields


class DeliveryPages(NewestFirst):
    """Pages of deliveries, the latest due first."""

    ordering = ("-due_at", "-id")


class DeliveryList(TenantView, ListAPIView[WebhookDelivery]):
    """Deliveries of one endpoint."""

    serializer_class = DeliverySerializer
    pagination_class = DeliveryPages

    def get_queryset(self) -> QuerySet[WebhookDelivery]:
        """Raises a 404 where the endpoint isn't there."""
        endpoint = get_object_or_404(WebhookEndpoint.objects.all(), id=self.kwargs["id"])
        found: QuerySet[WebhookDelivery] = WebhookDelivery.objects.filter(endpoint=endpoint)
        return found


class TenantSerializer(serializers.ModelSerializer[Tenant]):
    """The caller's own tenant."""

    class Meta:
        model = Tenant
        fields = ("id", "name", "status", "approval", "log_content", "ask_usage", "created_at")
        read_only_fields = fields


class PreferencesSerializer(serializers.Serializer[Any]):
    """What a tenant chooses for all of itself. What is not sent stays as it is."""

    name = serializers.CharField(max_length=120, required=False)
    approval = serializers.ChoiceField(choices=Tenant.Approval.choices, required=False)
    log_content = serializers.BooleanField(required=False)
    ask_usage = serializers.BooleanField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """A misspelt choice alone is refused: whoever sent it would believe that it is in force."""
        if not attrs:
            raise serializers.ValidationError("state name, approval, log_content or ask_usage")
        return attrs


class TenantDetail(TenantView):
    """Who the API thinks you are, and what you chose for all of yourself."""

    needs = Right.MANAGE_TENANT

    @extend_schema(responses=TenantSerializer)
    def get(self, request: Request) -> Response:
        """The tenant of the key or the session."""
        return Response(TenantSerializer(Tenant.objects.get()).data)

    @extend_schema(request=PreferencesSerializer, responses=TenantSerializer)
    def patch(self, request: Request) -> Response:
        """State some of the preferences. An owner's session may; a key may not, since it could end all logging."""
        asked = PreferencesSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        # Locked: of two changes at once, the later would put back what the earlier had changed.
        tenant = Tenant.objects.select_for_update().get()
        stated = {name: getattr(tenant, name) for name in ("name", "approval", "log_content", "ask_usage")}
        try:
            state_preferences(**stated | asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToPrefer as error:
            raise serializers.ValidationError({"detail": str(error)}) from error
        tenant.refresh_from_db()
        return Response(TenantSerializer(tenant).data)
