"""The operator's view of what is learned: runs with their leases, and adapters."""

from django.contrib import admin

from tenants.admin import ReadOnly
from training.models import Adapter, TrainingRun


@admin.register(TrainingRun)
class TrainingRunAdmin(ReadOnly):
    """Training runs."""

    columns = (
        "id",
        "tenant_id",
        "dataset_id",
        "rung",
        "status",
        "attempts",
        "fencing_token",
        "lease_until",
        "progress",
        "error",
        "seconds",
        "cost",
        "created_at",
        "finished_at",
    )
    list_filter = ("status", "rung")


@admin.register(Adapter)
class AdapterAdmin(ReadOnly):
    """Adapters."""

    columns = ("id", "tenant_id", "workload_id", "name", "rung", "status", "checksum", "card", "created_at")
    list_filter = ("status", "rung")
