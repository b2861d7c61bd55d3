"""The API of what it saved: statements with their interval, and the invoice for our share."""

from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.generics import ListAPIView, get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models import Invoice, SavingsStatement
from tenants.api import NewestFirst, TenantView


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
