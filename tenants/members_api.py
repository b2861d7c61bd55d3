"""The API of a tenant's people: each member sees who they are; an owner adds them, changes their roles, removes them.

As in the portal, to change them takes `Right.MANAGE_TENANT`, which no key has: a leaked one that could add an owner
would own the tenant.
"""

from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import NewestFirst, TenantView, utc_now
from tenants.core.roles import Right
from tenants.members import UnableToChangeMembers, add_member, change_role, remove_member
from tenants.models import Membership, User


class RuleOfMembers(APIException):
    """The change would break a rule about who belongs to a tenant."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "rule_of_members"


class MemberSerializer(serializers.ModelSerializer[Membership]):
    """A person's role in the tenant. `user_id` is what events call `user:ID`."""

    user_id = serializers.IntegerField(read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)

    class Meta:
        model = Membership
        fields = ("id", "user_id", "email", "role")
        read_only_fields = fields


class RoleSerializer(serializers.Serializer[Any]):
    """What a member may do."""

    role = serializers.ChoiceField(choices=Membership.Role.choices)


class NewMemberSerializer(RoleSerializer):
    """A person to add, with a first password to be handed over in person."""

    email = serializers.EmailField(max_length=254)
    password = serializers.CharField(max_length=256, trim_whitespace=False, write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Hold the password against the validators, the address included."""
        try:
            validate_password(attrs["password"], User(email=attrs["email"]))
        except ValidationError as error:
            raise serializers.ValidationError({"password": error.messages}) from error
        return attrs


class MemberPages(NewestFirst):
    """Pages of members, in the order in which they were added."""

    ordering = "id"


class MemberList(TenantView, ListAPIView[Membership]):
    """The tenant's people."""

    serializer_class = MemberSerializer
    pagination_class = MemberPages
    needs = Right.MANAGE_TENANT

    def get_queryset(self) -> QuerySet[Membership]:
        """All of them."""
        return _members()

    @extend_schema(request=NewMemberSerializer, responses={201: MemberSerializer})
    def post(self, request: Request) -> Response:
        """Let a person in. An owner's session may; a key may not."""
        asked = NewMemberSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            member = add_member(**asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToChangeMembers as error:
            raise serializers.ValidationError({"email": [str(error)]}) from error
        return Response(MemberSerializer(member).data, status=status.HTTP_201_CREATED)


class MemberRole(TenantView):
    """What a member may do."""

    needs = Right.MANAGE_TENANT

    @extend_schema(request=RoleSerializer, responses={200: MemberSerializer, 409: None})
    def put(self, request: Request, id: int) -> Response:
        """Give a member another role; 409 where no owner would be left. An owner's session may; a key may not."""
        member = get_object_or_404(_members(), id=id)
        asked = RoleSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            change_role(member, **asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToChangeMembers as error:
            raise RuleOfMembers(str(error)) from error
        return Response(MemberSerializer(get_object_or_404(_members(), id=id)).data)


class MemberRemoval(TenantView):
    """Taking a member out."""

    needs = Right.MANAGE_TENANT

    @extend_schema(request=None, responses={204: None, 409: None})
    def post(self, request: Request, id: int) -> Response:
        """Remove a member; 409 where no owner would be left. An owner's session may; a key may not."""
        member = get_object_or_404(_members(), id=id)
        try:
            remove_member(member, actor=self.caller.actor, now=utc_now())
        except UnableToChangeMembers as error:
            raise RuleOfMembers(str(error)) from error
        return Response(status=status.HTTP_204_NO_CONTENT)


def _members() -> QuerySet[Membership]:
    found: QuerySet[Membership] = Membership.objects.select_related("user")
    return found
