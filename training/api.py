"""The API of what is learned: training runs and the adapters they made."""

from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from tenants.api import NewestFirst, TenantView, utc_now
from tenants.core.roles import Right
from training.launch import retry_run
from training.models import Adapter, TrainingRun


class NothingToRetry(APIException):
    """The run neither failed nor was cancelled, or another of its dataset is open."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = "the run neither failed nor was cancelled, or another of its dataset is open"
    default_code = "nothing_to_retry"


class RunSerializer(serializers.ModelSerializer[TrainingRun]):
    """One attempt to make an adapter."""

    dataset_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = TrainingRun
        fields = (
            "id",
            "dataset_id",
            "rung",
            "status",
            "attempts",
            "progress",
            "metrics",
            "error",
            "seconds",
            "cost",
            "currency",
            "created_at",
            "started_at",
            "finished_at",
        )
        read_only_fields = fields


class RunList(TenantView, ListAPIView[TrainingRun]):
    """Training runs, newest first."""

    serializer_class = RunSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[TrainingRun]:
        """All of them."""
        return TrainingRun.objects.all()


class RunDetail(TenantView):
    """One run."""

    @extend_schema(responses=RunSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The run with its progress."""
        return Response(RunSerializer(get_object_or_404(TrainingRun.objects.all(), id=id)).data)


class RunCancellation(TenantView):
    """Stopping a run."""

    needs = Right.STOP

    @extend_schema(request=None, responses=RunSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Cancel at once if queued, at the next heartbeat if running; a run that is over stays as it is."""
        run = get_object_or_404(TrainingRun.objects.all(), id=id)
        run.request_cancel(utc_now(), actor=self.caller.actor)
        run.refresh_from_db()
        return Response(RunSerializer(run).data)


class RunRetry(TenantView):
    """Trying once more what failed or was cancelled."""

    needs = Right.STEER

    @extend_schema(request=None, responses={201: RunSerializer})
    def post(self, request: Request, id: UUID) -> Response:
        """A new run of the same dataset and rung; 409 if this one neither failed nor was cancelled, or one is open."""
        run = get_object_or_404(TrainingRun.objects.all(), id=id)
        queued = retry_run(run, actor=self.caller.actor, now=utc_now())
        if queued is None:
            raise NothingToRetry
        return Response(RunSerializer(queued).data, status=201)


class AdapterSerializer(serializers.ModelSerializer[Adapter]):
    """What a run made."""

    run_id = serializers.UUIDField(read_only=True)
    workload_id = serializers.UUIDField(read_only=True)
    dataset_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = Adapter
        fields = (
            "id",
            "run_id",
            "workload_id",
            "dataset_id",
            "name",
            "rung",
            "status",
            "checksum",
            "card",
            "created_at",
        )
        read_only_fields = fields


class AdapterList(TenantView, ListAPIView[Adapter]):
    """Adapters, newest first."""

    serializer_class = AdapterSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Adapter]:
        """All of them."""
        return Adapter.objects.all()


class AdapterDetail(TenantView):
    """One adapter."""

    @extend_schema(responses=AdapterSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The adapter with its model card."""
        return Response(AdapterSerializer(get_object_or_404(Adapter.objects.all(), id=id)).data)
