"""The API of model routes: under which names calls are made, and at which providers they are answered.

To set or remove one takes `Right.MANAGE_PROVIDERS`, which no key has: a leaked one must not send calls elsewhere.
"""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.core.calls import LONGEST_MODEL, Provider
from serving.model_routes import (
    MOST_DESTINATIONS,
    Destination,
    UnableToRoute,
    model_routes,
    remove_model_route,
    set_model_route,
)
from serving.models import ModelRoute
from tenants.api import TenantView, utc_now
from tenants.core.roles import Right
from tenants.models import ProviderCredential


class DestinationSerializer(serializers.Serializer[Any]):
    """A credential, and what the model is called there; empty is as asked."""

    credential_id = serializers.UUIDField()
    model = serializers.CharField(max_length=LONGEST_MODEL, required=False, default="", allow_blank=True)


class ModelRouteSerializer(serializers.Serializer[Any]):
    """Where calls for a model go, one after another; the model `*` is all that have no route of their own. A route is
    of the dialect that all its destinations take, so that two dialects may each have one for a name.
    """

    dialect = serializers.CharField(read_only=True)
    asked_model = serializers.CharField(max_length=LONGEST_MODEL)
    destinations = serializers.ListField(child=DestinationSerializer(), max_length=MOST_DESTINATIONS)


class AskedModelSerializer(serializers.Serializer[Any]):
    """A model's name as callers say it, and the dialect that they say it in."""

    dialect = serializers.ChoiceField(choices=(Provider.OPENAI.value, Provider.ANTHROPIC.value))
    asked_model = serializers.CharField(max_length=LONGEST_MODEL)


class ModelRouteList(TenantView):
    """The tenant's model routes."""

    needs = Right.MANAGE_PROVIDERS

    @extend_schema(responses=ModelRouteSerializer(many=True))
    def get(self, request: Request) -> Response:
        """All of them, by the asked-for model."""
        return Response([_shown(route) for route in model_routes()])

    @extend_schema(request=ModelRouteSerializer, responses={201: ModelRouteSerializer})
    def post(self, request: Request) -> Response:
        """Set a route, in place of the model's earlier one. A person's session may; a key may not."""
        asked = ModelRouteSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        told = asked.validated_data
        credentials = ProviderCredential.objects.in_bulk([one["credential_id"] for one in told["destinations"]])
        try:
            named = [(credentials[one["credential_id"]], one["model"]) for one in told["destinations"]]
        except KeyError as error:
            raise serializers.ValidationError({"destinations": ["There is no such credential."]}) from error
        try:
            destinations = [Destination(*one) for one in named]
            made = set_model_route(told["asked_model"], destinations, actor=self.caller.actor, now=utc_now())
        except UnableToRoute as error:
            raise serializers.ValidationError(str(error)) from error
        return Response(_shown(made), status=status.HTTP_201_CREATED)


class ModelRouteRemoval(TenantView):
    """Taking a route away. The name is in the body, since a model's may hold a slash."""

    needs = Right.MANAGE_PROVIDERS

    @extend_schema(request=AskedModelSerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Calls for the model go where others go, within seconds."""
        asked = AskedModelSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        if not remove_model_route(**asked.validated_data, actor=self.caller.actor, now=utc_now()):
            raise NotFound
        return Response(status=status.HTTP_204_NO_CONTENT)


def _shown(route: list[ModelRoute]) -> dict[str, Any]:
    destinations = [{"credential_id": str(one.credential_id), "model": one.model} for one in route]
    return {"dialect": route[0].dialect, "asked_model": route[0].asked_model, "destinations": destinations}
