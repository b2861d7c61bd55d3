"""The API of what is remembered: workloads with their promise, calls as facts, datasets as counts, erasures."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from ingestion.core.calls import Arm
from ingestion.erase import LONGEST_SUBJECT, UnableToErase, request_erasure
from ingestion.models import Call, Dataset, Erasure, Workload
from ingestion.promises import UnableToPromise, state_promise
from ingestion.sampling import UnableToSample, state_log_share
from tenants.api import EventPages, NewestFirst, TenantView, utc_now
from tenants.core.roles import Right


class WorkloadSerializer(serializers.ModelSerializer[Workload]):
    """One task found in the traffic, with the verdict on it and what was promised for it."""

    verdict_reasons = serializers.ListField(child=serializers.CharField(), read_only=True)
    left_out = serializers.DictField(child=serializers.IntegerField(), read_only=True)

    class Meta:
        model = Workload
        fields = (
            "id",
            "slug",
            "name",
            "kind",
            "dialect",
            "asked_model",
            "verdict",
            "verdict_reasons",
            "figures",
            "left_out",
            "alpha",
            "delta",
            "promise",
            "approval",
            "log_share",
            "found_at",
            "looked_at",
        )
        read_only_fields = fields


class WorkloadPages(NewestFirst):
    """Pages of workloads, the latest found first."""

    ordering = ("-found_at", "-id")


class WorkloadList(TenantView, ListAPIView[Workload]):
    """The tenant's workloads."""

    serializer_class = WorkloadSerializer
    pagination_class = WorkloadPages

    def get_queryset(self) -> QuerySet[Workload]:
        """All of them."""
        return Workload.objects.all()


class WorkloadDetail(TenantView):
    """One workload."""

    @extend_schema(responses=WorkloadSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The workload as it stands."""
        return Response(WorkloadSerializer(get_object_or_404(Workload.objects.all(), id=id)).data)


class PromiseSerializer(serializers.Serializer[Any]):
    """How often a student may differ from the teacher, how sure we are to be, and who approves."""

    alpha = serializers.FloatField(min_value=0.001, max_value=0.5)
    delta = serializers.FloatField(min_value=0.001, max_value=0.5)
    promise = serializers.ChoiceField(choices=Workload.Promise.choices)
    approval = serializers.ChoiceField(choices=Workload.Approval.choices)


class WorkloadPromise(TenantView):
    """Stating a workload's promise."""

    needs = Right.STEER

    @extend_schema(request=PromiseSerializer, responses=WorkloadSerializer)
    def put(self, request: Request, id: UUID) -> Response:
        """Certificates issued from now on hold to it, and a rollout that can't is rolled back."""
        workload = get_object_or_404(Workload.objects.all(), id=id)
        asked = PromiseSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            state_promise(workload, **asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToPromise as error:
            raise serializers.ValidationError({"detail": str(error)}) from error
        workload.refresh_from_db()
        return Response(WorkloadSerializer(workload).data)


class LoggingSerializer(serializers.Serializer[Any]):
    """Of which share of a workload's calls the content is kept."""

    log_share = serializers.FloatField(min_value=0, max_value=1)


class WorkloadLogging(TenantView):
    """Stating how much of a workload is kept with its content."""

    needs = Right.MANAGE_TENANT

    @extend_schema(request=LoggingSerializer, responses=WorkloadSerializer)
    def put(self, request: Request, id: UUID) -> Response:
        """In force within seconds. An owner's session may; a key may not, since it could end all learning."""
        workload = get_object_or_404(Workload.objects.all(), id=id)
        asked = LoggingSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            state_log_share(workload, **asked.validated_data, actor=self.caller.actor, now=utc_now())
        except UnableToSample as error:
            raise serializers.ValidationError({"detail": str(error)}) from error
        workload.refresh_from_db()
        return Response(WorkloadSerializer(workload).data)


class CallSerializer(serializers.ModelSerializer[Call]):
    """The facts of one call; its bodies are not in the API."""

    teacher_cost = serializers.DecimalField(max_digits=20, decimal_places=10, read_only=True, allow_null=True)

    class Meta:
        model = Call
        fields = (
            "id",
            "key_id",
            "at",
            "dialect",
            "provider",
            "credential_id",
            "failovers",
            "asked_model",
            "answered_model",
            "workload_id",
            "arm",
            "reason",
            "adapter",
            "score",
            "novelty",
            "status",
            "finish",
            "stream",
            "complete",
            "input_tokens",
            "output_tokens",
            "cached_input_tokens",
            "cache_write_tokens",
            "usage_estimated",
            "student_input_tokens",
            "student_output_tokens",
            "student_ms",
            "queue_ms",
            "first_byte_ms",
            "total_ms",
            "teacher_cost",
            "currency",
        )
        read_only_fields = fields


class CallFilter(serializers.Serializer[Any]):
    """What a listing of calls may be narrowed by, and nothing else."""

    workload = serializers.UUIDField(required=False)
    arm = serializers.ChoiceField(choices=[arm.value for arm in Arm], required=False)
    since = serializers.DateTimeField(required=False)
    until = serializers.DateTimeField(required=False)


class CallList(TenantView, ListAPIView[Call]):
    """Calls, newest first."""

    serializer_class = CallSerializer
    pagination_class = EventPages

    @extend_schema(
        parameters=[
            OpenApiParameter("workload", UUID),
            OpenApiParameter("arm", str, enum=[arm.value for arm in Arm]),
            OpenApiParameter("since", datetime),
            OpenApiParameter("until", datetime, description="exclusive"),
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Narrowed by workload, arm and a half-open period."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> QuerySet[Call]:
        """Raises a 400 on a filter that can't be read."""
        asked = CallFilter(data=self.request.query_params)
        asked.is_valid(raise_exception=True)
        lookups = {"workload": "workload_id", "arm": "arm", "since": "at__gte", "until": "at__lt"}
        found: QuerySet[Call] = Call.objects.filter(
            **{lookups[name]: value for name, value in asked.validated_data.items()}
        )
        return found


class CallDetail(TenantView):
    """One call."""

    @extend_schema(responses=CallSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The call's facts."""
        return Response(CallSerializer(get_object_or_404(Call.objects.all(), id=id)).data)


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    """A dataset version: what is in it as counts, what was left out and why, and under which terms it came in."""

    workload_id = serializers.UUIDField(read_only=True)
    counts = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    left_out = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    stances = serializers.DictField(child=serializers.IntegerField(), read_only=True)

    class Meta:
        model = Dataset
        fields = (
            "id",
            "workload_id",
            "version",
            "kind",
            "counts",
            "left_out",
            "stances",
            "redactions",
            "content_hash",
            "created_at",
            "frozen_at",
        )
        read_only_fields = fields


class DatasetList(TenantView, ListAPIView[Dataset]):
    """Dataset versions of all workloads."""

    serializer_class = DatasetSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Dataset]:
        """All of them."""
        return Dataset.objects.all()


class DatasetDetail(TenantView):
    """One dataset version."""

    @extend_schema(responses=DatasetSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The version as it was frozen."""
        return Response(DatasetSerializer(get_object_or_404(Dataset.objects.all(), id=id)).data)


class ErasureSerializer(serializers.ModelSerializer[Erasure]):
    """One request to forget a person, who is not named, and what went with them."""

    datasets = serializers.ListField(child=serializers.UUIDField(), read_only=True)

    class Meta:
        model = Erasure
        fields = (
            "id",
            "requested_by",
            "requested_at",
            "finished_at",
            "calls",
            "payloads",
            "examples",
            "parked",
            "datasets",
        )
        read_only_fields = fields


class SubjectSerializer(serializers.Serializer[Any]):
    """A person as callers name them in `user`, `safety_identifier` or `metadata.user_id`, to the letter."""

    subject = serializers.CharField(max_length=LONGEST_SUBJECT, trim_whitespace=False)


class ErasurePages(NewestFirst):
    """Pages of erasures, the latest asked for first."""

    ordering = ("-requested_at", "-id")


class ErasureList(TenantView, ListAPIView[Erasure]):
    """Whom the tenant had forgotten."""

    serializer_class = ErasureSerializer
    pagination_class = ErasurePages
    needs = Right.ERASE

    def get_queryset(self) -> QuerySet[Erasure]:
        """All of them."""
        return Erasure.objects.all()

    @extend_schema(request=SubjectSerializer, responses={202: ErasureSerializer})
    def post(self, request: Request) -> Response:
        """Nothing of theirs is written from now on; what there is goes within minutes."""
        asked = SubjectSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            erasure = request_erasure(asked.validated_data["subject"], actor=self.caller.actor, clock=utc_now)
        except UnableToErase as error:
            raise serializers.ValidationError({"subject": [str(error)]}) from error
        return Response(ErasureSerializer(erasure).data, status=status.HTTP_202_ACCEPTED)
