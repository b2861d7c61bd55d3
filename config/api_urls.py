"""The API's addresses, one table for all apps."""

from django.urls import path

from billing import api as billing
from ingestion import api as ingestion
from serving import api as serving
from serving import limits_api as limits
from serving import model_routes_api as model_routes
from tenants import api as tenants
from tenants import credentials_api as credentials
from tenants import members_api as members
from training import api as training

app_name = "api"
urlpatterns = [
    path("tenant", tenants.TenantDetail.as_view(), name="tenant"),
    path("members", members.MemberList.as_view(), name="members"),
    path("members/<int:id>/role", members.MemberRole.as_view(), name="member-role"),
    path("members/<int:id>/remove", members.MemberRemoval.as_view(), name="member-remove"),
    path("credentials", credentials.CredentialList.as_view(), name="credentials"),
    path("credentials/<uuid:id>/remove", credentials.CredentialRemoval.as_view(), name="credential-remove"),
    path("credentials/<uuid:id>/stance", credentials.CredentialStance.as_view(), name="credential-stance"),
    path("keys", tenants.KeyList.as_view(), name="keys"),
    path("keys/<uuid:id>/revoke", tenants.KeyRevocation.as_view(), name="key-revoke"),
    path("events", tenants.EventList.as_view(), name="events"),
    path("endpoints", tenants.EndpointList.as_view(), name="endpoints"),
    path("endpoints/<uuid:id>/disable", tenants.EndpointDisabling.as_view(), name="endpoint-disable"),
    path("endpoints/<uuid:id>/enable", tenants.EndpointEnabling.as_view(), name="endpoint-enable"),
    path("endpoints/<uuid:id>/deliveries", tenants.DeliveryList.as_view(), name="deliveries"),
    path("workloads", ingestion.WorkloadList.as_view(), name="workloads"),
    path("workloads/<uuid:id>", ingestion.WorkloadDetail.as_view(), name="workload"),
    path("workloads/<uuid:id>/promise", ingestion.WorkloadPromise.as_view(), name="workload-promise"),
    path("workloads/<uuid:id>/logging", ingestion.WorkloadLogging.as_view(), name="workload-logging"),
    path("workloads/<uuid:id>/spend", billing.WorkloadSpend.as_view(), name="workload-spend"),
    path("calls", ingestion.CallList.as_view(), name="calls"),
    path("calls/<uuid:id>", ingestion.CallDetail.as_view(), name="call"),
    path("datasets", ingestion.DatasetList.as_view(), name="datasets"),
    path("datasets/<uuid:id>", ingestion.DatasetDetail.as_view(), name="dataset"),
    path("erasures", ingestion.ErasureList.as_view(), name="erasures"),
    path("runs", training.RunList.as_view(), name="runs"),
    path("runs/<uuid:id>", training.RunDetail.as_view(), name="run"),
    path("runs/<uuid:id>/cancel", training.RunCancellation.as_view(), name="run-cancel"),
    path("runs/<uuid:id>/retry", training.RunRetry.as_view(), name="run-retry"),
    path("adapters", training.AdapterList.as_view(), name="adapters"),
    path("adapters/<uuid:id>", training.AdapterDetail.as_view(), name="adapter"),
    path("evaluations", serving.EvaluationList.as_view(), name="evaluations"),
    path("certificates", serving.CertificateList.as_view(), name="certificates"),
    path("rollouts", serving.RolloutList.as_view(), name="rollouts"),
    path("rollouts/<uuid:id>", serving.RolloutDetail.as_view(), name="rollout"),
    path("rollouts/<uuid:id>/approve", serving.RolloutApproval.as_view(), name="rollout-approve"),
    path("rollouts/<uuid:id>/hold", serving.RolloutHold.as_view(), name="rollout-hold"),
    path("rollouts/<uuid:id>/resume", serving.RolloutResume.as_view(), name="rollout-resume"),
    path("rollouts/<uuid:id>/back-to-teacher", serving.RolloutBackToTeacher.as_view(), name="rollout-back-to-teacher"),
    path("model-routes", model_routes.ModelRouteList.as_view(), name="model-routes"),
    path("model-routes/remove", model_routes.ModelRouteRemoval.as_view(), name="model-route-remove"),
    path("limits", limits.LimitList.as_view(), name="limits"),
    path("limits/<uuid:id>/remove", limits.LimitRemoval.as_view(), name="limit-remove"),
    path("statements", billing.StatementList.as_view(), name="statements"),
    path("statements/<uuid:id>", billing.StatementDetail.as_view(), name="statement"),
    path("statements/<uuid:id>/items", billing.StatementItems.as_view(), name="statement-items"),
    path("invoices", billing.InvoiceList.as_view(), name="invoices"),
]
