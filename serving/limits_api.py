"""The API of limits: what a tenant allows itself in requests, tokens and dollars, and how much of it is used.

To set or remove one takes `Right.MANAGE_LIMITS`, which no key has: a leaked one must not lift its own limit.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.models import Workload
from serving.core.limits import Measure, Window
from serving.limits import UnableToLimit, remove_limit, set_limit, standing
from serving.models import Limit
from tenants.api import NewestFirst, TenantView, utc_now
from tenants.core.roles import Right
from tenants.models import ApiKey


class LimitSerializer(serializers.ModelSerializer[Limit]):
    """A limit. `amount` and `used` are requests, tokens or US dollars; a window is one of the calendar, in UTC.

    `used` is what was seen at `read_at`, once a minute for days and months; null where it was not looked at.
    """

    key_id = serializers.UUIDField(read_only=True, allow_null=True)
    workload_id = serializers.UUIDField(read_only=True, allow_null=True)
    used = serializers.SerializerMethodField()
    ends_at = serializers.SerializerMethodField()

    class Meta:
        model = Limit
        fields = (
            *("id", "measure", "window", "amount", "key_id", "workload_id"),
            *("set_at", "used", "read_at", "ends_at"),
        )
        read_only_fields = fields

    def get_used(self, limit: Limit) -> str | None:
        """In this window, as a decimal number."""
        used = standing(limit, utc_now())[0]
        return None if used is None else f"{used:f}"

    def get_ends_at(self, limit: Limit) -> datetime:
        """When this window ends."""
        return standing(limit, utc_now())[1]


class NewLimitSerializer(serializers.Serializer[Any]):
    """A limit to set, in place of one of the same measure, window, key and workload."""

    measure = serializers.ChoiceField(choices=list(Measure))
    window = serializers.ChoiceField(choices=list(Window))
    amount = serializers.DecimalField(max_digits=25, decimal_places=9)
    key_id = serializers.UUIDField(required=False, allow_null=True)
    workload_id = serializers.UUIDField(required=False, allow_null=True)


class LimitPages(NewestFirst):
    """Pages of limits."""

    ordering = ("-set_at", "-id")


class LimitList(TenantView, ListAPIView[Limit]):
    """The tenant's limits."""

    serializer_class = LimitSerializer
    pagination_class = LimitPages
    needs = Right.MANAGE_LIMITS

    def get_queryset(self) -> QuerySet[Limit]:
        """All of them."""
        return Limit.objects.all()

    @extend_schema(request=NewLimitSerializer, responses={201: LimitSerializer})
    def post(self, request: Request) -> Response:
        """Set a limit; gateways hold it within seconds. A person's session may; a key may not."""
        asked = NewLimitSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        told = asked.validated_data
        key_id, workload_id = told.pop("key_id", None), told.pop("workload_id", None)
        key = get_object_or_404(ApiKey.objects.all(), id=key_id) if key_id else None
        workload = get_object_or_404(Workload.objects.all(), id=workload_id) if workload_id else None
        try:
            limit = set_limit(**told, key=key, workload=workload, actor=self.caller.actor, now=utc_now())
        except UnableToLimit as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(LimitSerializer(limit).data, status=status.HTTP_201_CREATED)


class LimitRemoval(TenantView):
    """Taking a limit away."""

    needs = Right.MANAGE_LIMITS

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, id: UUID) -> Response:
        """Gateways forget it within seconds."""
        limit = get_object_or_404(Limit.objects.all(), id=id)
        remove_limit(limit, actor=self.caller.actor, now=utc_now())
        return Response(status=status.HTTP_204_NO_CONTENT)
