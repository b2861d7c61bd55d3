"""The operator's view of what is remembered: workloads, prices, and records that could not be stored."""

from django.contrib import admin

from ingestion.models import ParkedRecord, Price, Workload
from tenants.admin import ReadOnly, ReadOnlyShared


@admin.register(Workload)
class WorkloadAdmin(ReadOnly):
    """Tasks found in the traffic."""

    columns = ("id", "tenant_id", "slug", "kind", "dialect", "asked_model", "verdict", "alpha", "delta", "found_at")
    list_filter = ("verdict", "kind")


@admin.register(Price)
class PriceAdmin(ReadOnlyShared):
    """Versioned prices."""

    columns = (
        "id",
        "provider",
        "model",
        "currency",
        "input_per_million",
        "output_per_million",
        "cached_input_per_million",
        "cache_write_per_million",
        "valid_from",
        "valid_until",
        "source",
    )
    search_fields = ("model",)
    list_filter = ("provider",)


@admin.register(ParkedRecord)
class ParkedRecordAdmin(ReadOnly):
    """Spool records that could not be stored; the record itself stays closed."""

    columns = ("id", "tenant_id", "reason", "parked_at")
