"""The API of provider credentials: stored sealed and never shown, each with the stance on its provider's terms.

As in the portal, to store one or to state a stance takes `Right.MANAGE_PROVIDERS`, which no key has: a leaked one that
could give another base URL would have every call of the tenant sent there, and a stance is a person's word.
"""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import NewestFirst, TenantView, utc_now
from tenants.core.roles import Right
from tenants.credentials import PROVIDERS, SECRET_PATTERN, SECRET_RULE, UnableToSendThere, check_base_url
from tenants.models import ProviderCredential
from tenants.provision import UnableToRemove, UnableToStore, remove_credential, state_stance, store_credential


class CredentialSerializer(serializers.ModelSerializer[ProviderCredential]):
    """A key at a provider by its last four characters, where calls under it go, and what the provider's terms allow."""

    class Meta:
        model = ProviderCredential
        fields = ("id", "name", "provider", "base_url", "hint", "stance", "stance_at")
        read_only_fields = fields


class StanceSerializer(serializers.Serializer[Any]):
    """What a provider's terms let us do with its answers."""

    stance = serializers.ChoiceField(choices=ProviderCredential.Stance.choices)


class NewCredentialSerializer(StanceSerializer):
    """A key of the tenant's at a provider. `base_url` is without `/v1`. Without a `name` it has the provider's, and
    calls that no model route sends elsewhere go under that one.
    """

    name = serializers.SlugField(max_length=40, required=False, default="", allow_blank=True)
    provider = serializers.ChoiceField(choices=PROVIDERS)
    base_url = serializers.CharField(max_length=300)
    secret = serializers.RegexField(
        SECRET_PATTERN,
        min_length=8,
        max_length=500,
        write_only=True,
        error_messages={"invalid": SECRET_RULE},
    )

    def validate_base_url(self, typed: str) -> str:
        """An address that calls may be sent to."""
        try:
            return check_base_url(typed)
        except UnableToSendThere as error:
            raise serializers.ValidationError(str(error)) from error


class CredentialPages(NewestFirst):
    """Pages of credentials."""

    ordering = "name"


class CredentialList(TenantView, ListAPIView[ProviderCredential]):
    """The tenant's keys at its providers."""

    serializer_class = CredentialSerializer
    pagination_class = CredentialPages
    needs = Right.MANAGE_PROVIDERS

    def get_queryset(self) -> QuerySet[ProviderCredential]:
        """All of them."""
        return ProviderCredential.objects.all()

    @extend_schema(request=NewCredentialSerializer, responses={201: CredentialSerializer})
    def post(self, request: Request) -> Response:
        """Seal a key at a provider, in place of one of that name. A person's session may; a key may not."""
        asked = NewCredentialSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            kept = store_credential(**asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToStore as error:
            raise serializers.ValidationError({"name": str(error)}) from error
        return Response(CredentialSerializer(kept).data, status=status.HTTP_201_CREATED)


class CredentialRemoval(TenantView):
    """Forgetting a key at a provider."""

    needs = Right.MANAGE_PROVIDERS

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request, id: UUID) -> Response:
        """Calls go under another one within seconds, or are refused. A person's session may; a key may not."""
        credential = get_object_or_404(ProviderCredential.objects.all(), id=id)
        try:
            remove_credential(credential, actor=self.caller.actor, now=utc_now())
        except UnableToRemove as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


class CredentialStance(TenantView):
    """What a provider's terms let us do."""

    needs = Right.MANAGE_PROVIDERS

    @extend_schema(request=StanceSerializer, responses=CredentialSerializer)
    def put(self, request: Request, id: UUID) -> Response:
        """It holds from now on; pairs keep the one they came in under. A person's session may; a key may not."""
        credential = get_object_or_404(ProviderCredential.objects.all(), id=id)
        asked = StanceSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        state_stance(credential, **asked.validated_data, actor=self.caller.actor, now=utc_now())
        credential.refresh_from_db()
        return Response(CredentialSerializer(credential).data)
