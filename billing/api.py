"""The API of what it saved: a workload's spend, statements with interval and line items, the invoice for our share."""

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models import Invoice, SavingsStatement
from billing.spend import Spend, line_items, measure_spend
from ingestion.models import MONEY, Workload
from tenants.api import NewestFirst, TenantView, utc_now

SPEND_WINDOW: Final = timedelta(days=30)  # the portal's


class StatementSerializer(serializers.ModelSerializer[SavingsStatement]):
    """A month's account. Money is text, exact to the last digit."""

    class Meta:
        model = SavingsStatement
        fields = (
            "id",
            "number",
            "starts_at",
            "ends_at",
            "status",
            "calls",
            "student_calls",
            "counterfactual",
            "teacher_cost",
            "audit_cost",
            "training_cost",
            "serving_cost",
            "saving",
            "saving_low",
            "saving_high",
            "share",
            "fee",
            "currency",
            "updated_at",
            "closed_at",
        )
        read_only_fields = fields


class StatementPages(NewestFirst):
    """Pages of statements, the latest month first."""

    ordering = ("-starts_at", "-id")


class StatementList(TenantView, ListAPIView[SavingsStatement]):
    """Savings statements, the latest month first."""

    serializer_class = StatementSerializer
    pagination_class = StatementPages

    def get_queryset(self) -> QuerySet[SavingsStatement]:
        """All of them."""
        return SavingsStatement.objects.all()


class StatementDetail(TenantView):
    """One statement."""

    @extend_schema(responses=StatementSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The statement as it stands, or as it was closed."""
        return Response(StatementSerializer(get_object_or_404(SavingsStatement.objects.all(), id=id)).data)


class ItemSerializer(serializers.Serializer[Any]):
    """One line of a statement: the entries of a kind (calls, audit, training, serving), workload, arm and model."""

    kind = serializers.CharField()
    workload_id = serializers.UUIDField(allow_null=True)
    arm = serializers.CharField()
    model = serializers.CharField()
    calls = serializers.IntegerField(source="n")
    input_tokens = serializers.IntegerField(source="read")
    output_tokens = serializers.IntegerField(source="written")
    counterfactual = serializers.DecimalField(**MONEY, source="would")
    actual = serializers.DecimalField(**MONEY, source="spent")
    saving = serializers.DecimalField(**MONEY, source="saved")
    currency = serializers.CharField()


class ItemPages(NewestFirst):
    """Pages of line items. By what each is of, not by its money: an open statement's figures move between pages."""

    ordering = ("kind", "workload_id", "arm", "model")
    offset_cutoff = 1_000_000  # the cursor counts within one kind, of which there may be many lines


class StatementItems(TenantView, ListAPIView[Any]):
    """A statement's line items, which add up to its figures."""

    serializer_class = ItemSerializer
    pagination_class = ItemPages

    def get_queryset(self) -> QuerySet[Any]:
        """Raises a 404 where the statement isn't there."""
        statement = get_object_or_404(SavingsStatement.objects.all(), id=self.kwargs["id"])
        return line_items(statement)


class SpendSerializer(serializers.Serializer[Spend]):
    """A workload's last thirty days: volume, the student's share of it, and the money. Money is text."""

    workload_id = serializers.UUIDField()
    since = serializers.DateTimeField()
    calls = serializers.IntegerField()
    student_calls = serializers.IntegerField()
    coverage = serializers.FloatField()
    counterfactual = serializers.DecimalField(**MONEY)
    teacher_cost = serializers.DecimalField(**MONEY)
    audit_cost = serializers.DecimalField(**MONEY)
    training_cost = serializers.DecimalField(**MONEY)
    serving_cost = serializers.DecimalField(**MONEY)
    saving = serializers.DecimalField(**MONEY)
    currency = serializers.CharField()


class WorkloadSpend(TenantView):
    """What a workload costs and saves."""

    @extend_schema(responses=SpendSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """The last thirty days, from the ledger: the last hour's calls come within minutes."""
        workload: Workload = get_object_or_404(Workload.objects.all(), id=id)
        return Response(SpendSerializer(measure_spend(workload, since=utc_now() - SPEND_WINDOW)).data)


class InvoiceSerializer(serializers.ModelSerializer[Invoice]):
    """Our share of a closed statement's saving."""

    statement_id = serializers.UUIDField(read_only=True)

    class Meta:
        model = Invoice
        fields = (
            "id",
            "statement_id",
            "status",
            "amount",
            "currency",
            "hosted_url",
            "created_at",
            "issued_at",
            "paid_at",
        )
        read_only_fields = fields


class InvoiceList(TenantView, ListAPIView[Invoice]):
    """Invoices, newest first."""

    serializer_class = InvoiceSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Invoice]:
        """All of them."""
        return Invoice.objects.all()
