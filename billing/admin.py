"""The operator's view of the money: statements and invoices."""

from django.contrib import admin

from billing.models import Invoice, SavingsStatement
from tenants.admin import ReadOnly


@admin.register(SavingsStatement)
class SavingsStatementAdmin(ReadOnly):
    """Savings statements."""

    columns = (
        "id",
        "tenant_id",
        "number",
        "status",
        "calls",
        "student_calls",
        "counterfactual",
        "saving",
        "saving_low",
        "saving_high",
        "share",
        "fee",
        "currency",
        "updated_at",
    )
    list_filter = ("status",)


@admin.register(Invoice)
class InvoiceAdmin(ReadOnly):
    """Invoices."""

    columns = (
        "id",
        "tenant_id",
        "statement_id",
        "status",
        "amount",
        "currency",
        "stripe_invoice_id",
        "created_at",
        "issued_at",
        "paid_at",
    )
    list_filter = ("status",)
