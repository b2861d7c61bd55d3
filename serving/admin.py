"""The operator's view of how we answer: deployments, certificates, rollouts."""

from django.contrib import admin

from serving.models import Certificate, Deployment, Rollout
from tenants.admin import ReadOnly


@admin.register(Deployment)
class DeploymentAdmin(ReadOnly):
    """Adapters on replicas."""

    columns = ("id", "tenant_id", "adapter_id", "status", "error", "created_at", "live_at", "changed_at")
    list_filter = ("status",)


@admin.register(Certificate)
class CertificateAdmin(ReadOnly):
    """Certificates and refusals."""

    columns = (
        "id",
        "tenant_id",
        "adapter_id",
        "alpha",
        "delta",
        "promise",
        "certified",
        "threshold",
        "coverage",
        "upper_bound",
        "reason",
        "more_rows_needed",
        "issued_at",
    )
    list_filter = ("certified",)


@admin.register(Rollout)
class RolloutAdmin(ReadOnly):
    """Rollouts."""

    columns = ("id", "tenant_id", "workload_id", "deployment_id", "state", "share", "approved_at", "reason", "step_at")
    list_filter = ("state",)
