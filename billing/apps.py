"""What it saved: ledger, statements, invoices."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """Registers the app."""

    name = "billing"
