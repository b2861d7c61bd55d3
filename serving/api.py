"""The API of how we answer: rollouts with their audits and certificates, and a person's hand on them."""

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from serving.models import Certificate, Evaluation, Rollout
from serving.rollout import approve, back_to_teacher, hold, resume, tally
from tenants.api import NewestFirst, TenantView, utc_now
from tenants.core.roles import Right


class MovedOn(APIException):
    """The rollout isn't in a state that allows this, or another was first."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "the rollout's state does not allow this"
    default_code = "moved_on"


class EvaluationSerializer(serializers.ModelSerializer[Evaluation]):
    """What an adapter answered on the replica that will serve it: agreement by arm, and how far it is."""

    adapter_id = serializers.UUIDField(source="deployment.adapter_id", read_only=True)

    class Meta:
        model = Evaluation
        fields = ("id", "adapter_id", "status", "attempts", "progress", "arms", "error", "created_at", "finished_at")
        read_only_fields = fields


class EvaluationList(TenantView, ListAPIView[Evaluation]):
    """Evaluations, newest first."""

    serializer_class = EvaluationSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Evaluation]:
        """All of them, without their rows."""
        return Evaluation.objects.select_related("deployment").defer("rows")


class CertificateSerializer(serializers.ModelSerializer[Certificate]):
    """What is promised of an adapter, or why nothing is."""

    adapter_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = Certificate
        fields = (
            "id",
            "adapter_id",
            "alpha",
            "delta",
            "promise",
            "certified",
            "threshold",
            "coverage",
            "calibration_rows",
            "accepted",
            "differing",
            "upper_bound",
            "curve",
            "reason",
            "more_rows_needed",
            "issued_at",
        )
        read_only_fields = fields


class CertificatePages(NewestFirst):
    """Pages of certificates."""

    ordering = ("-issued_at", "-id")


class CertificateList(TenantView, ListAPIView[Certificate]):
    """Certificates and refusals, newest first."""

    serializer_class = CertificateSerializer
    pagination_class = CertificatePages

    def get_queryset(self) -> QuerySet[Certificate]:
        """All of them."""
        return Certificate.objects.all()


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    """How far an adapter has been given a workload's traffic."""

    workload_id = serializers.UUIDField(read_only=True)
    deployment_id = serializers.UUIDField(read_only=True)
    certificate_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = Rollout
        fields = (
            "id",
            "workload_id",
            "deployment_id",
            "certificate_id",
            "state",
            "share",
            "held_from",
            "approved_at",
            "reason",
            "created_at",
            "step_at",
        )
        read_only_fields = fields


class TallySerializer(serializers.Serializer[Any]):
    """What a rollout's audits add up to; `low` and `high` bound the risk at every look."""

    accepted = serializers.IntegerField()
    differing = serializers.IntegerField()
    step_accepted = serializers.IntegerField()
    waiting = serializers.IntegerField()
    coverage = serializers.FloatField()
    log_e = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class RolloutWithAuditsSerializer(RolloutSerializer):
    """A rollout with its audits counted."""

    audits = TallySerializer(read_only=True)

    class Meta(RolloutSerializer.Meta):
        fields = (*RolloutSerializer.Meta.fields, "audits")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class RolloutList(TenantView, ListAPIView[Rollout]):
    """Rollouts, newest first."""

    serializer_class = RolloutSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Rollout]:
        """Also those rolled back."""
        return Rollout.objects.all()


class RolloutDetail(TenantView):
    """One rollout."""

    @extend_schema(responses=RolloutWithAuditsSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The rollout with its audits counted."""
        rollout = get_object_or_404(Rollout.objects.select_related("certificate"), id=id)
        return Response({**RolloutSerializer(rollout).data, "audits": TallySerializer(tally(rollout)).data})


class ReasonSerializer(serializers.Serializer[Any]):
    """Why, for the event log."""

    reason = serializers.CharField(max_length=300)


class RolloutHold(TenantView):
    """Stopping for now."""

    needs = Right.STOP

    @extend_schema(request=ReasonSerializer, responses=RolloutSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """The teacher answers everything until somebody resumes."""
        rollout, reason = _rollout(id), _reason(request)
        return _answer(rollout, hold(rollout, actor=self.caller.actor, reason=reason, now=utc_now()))


class RolloutResume(TenantView):
    """Going on."""

    needs = Right.STEER

    @extend_schema(request=None, responses=RolloutSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Go on where `hold` stopped."""
        rollout = _rollout(id)
        return _answer(rollout, resume(rollout, actor=self.caller.actor, now=utc_now()))


class RolloutApproval(TenantView):
    """Saying yes."""

    needs = Right.STEER

    @extend_schema(request=None, responses=RolloutSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Let the rollout go beyond shadow."""
        rollout = _rollout(id)
        return _answer(rollout, approve(rollout, actor=self.caller.actor, now=utc_now()))


class RolloutBackToTeacher(TenantView):
    """Giving the student up."""

    needs = Right.STOP

    @extend_schema(request=ReasonSerializer, responses=RolloutSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """All traffic back to the teacher, for good for this adapter."""
        rollout, reason = _rollout(id), _reason(request)
        return _answer(rollout, back_to_teacher(rollout, actor=self.caller.actor, reason=reason, now=utc_now()))


def _rollout(id: UUID) -> Rollout:
    found: Rollout = get_object_or_404(Rollout.objects.select_related("deployment__adapter"), id=id)
    return found


def _reason(request: Request) -> str:
    asked = ReasonSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    return str(asked.validated_data["reason"])


def _answer(rollout: Rollout, moved: bool) -> Response:
    if not moved:
        raise MovedOn
    rollout.refresh_from_db()
    return Response(RolloutSerializer(rollout).data)
