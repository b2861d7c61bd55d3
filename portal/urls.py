"""The portal's addresses."""

from django.urls import path

from portal import account, calls, keys, overview, savings, settings, webhooks, workloads

app_name = "portal"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("overview/figures", overview.overview_figures, name="overview-figures"),
    path("signup", account.sign_up_page, name="sign-up"),
    path("login", account.LogIn.as_view(), name="log-in"),
    path("login/demo", account.log_in_to_demo, name="log-in-demo"),
    path("logout", account.log_out, name="log-out"),
    path("workloads", workloads.workload_list, name="workloads"),
    path("workloads/<uuid:id>", workloads.workload_page, name="workload"),
    path("workloads/<uuid:id>/pipeline", workloads.workload_pipeline, name="workload-pipeline"),
    path("workloads/<uuid:id>/examples", workloads.workload_examples, name="workload-examples"),
    path("workloads/<uuid:id>/promise", workloads.state_workload_promise, name="workload-promise"),
    path("rollouts/<uuid:id>/approve", workloads.approve_rollout, name="rollout-approve"),
    path("rollouts/<uuid:id>/hold", workloads.hold_rollout, name="rollout-hold"),
    path("rollouts/<uuid:id>/resume", workloads.resume_rollout, name="rollout-resume"),
    path("rollouts/<uuid:id>/back-to-teacher", workloads.send_back_to_teacher, name="rollout-back-to-teacher"),
    path("calls", calls.call_list, name="calls"),
    path("calls/<uuid:id>", calls.call_page, name="call"),
    path("calls/<uuid:id>/bodies", calls.open_call_bodies, name="call-bodies"),
    path("keys", keys.key_list, name="keys"),
    path("keys/new", keys.make_key, name="key-new"),
    path("keys/<uuid:id>/revoke", keys.revoke, name="key-revoke"),
    path("savings", savings.statement_list, name="savings"),
    path("savings/<uuid:id>", savings.statement_page, name="statement"),
    path("savings/<uuid:id>.csv", savings.statement_csv, name="statement-csv"),
    path("webhooks", webhooks.endpoint_list, name="webhooks"),
    path("webhooks/new", webhooks.make_endpoint, name="endpoint-new"),
    path("webhooks/<uuid:id>/disable", webhooks.disable, name="endpoint-disable"),
    path("webhooks/<uuid:id>/enable", webhooks.enable, name="endpoint-enable"),
    path("settings", settings.settings_page, name="settings"),
    path("settings/preferences", settings.prefer, name="preferences"),
    path("settings/credentials", settings.keep_credential, name="credential-new"),
    path("settings/credentials/<uuid:id>/stance", settings.change_stance, name="credential-stance"),
    path("settings/members", settings.add, name="member-new"),
    path("settings/members/<int:id>/role", settings.change, name="member-role"),
    path("settings/members/<int:id>/remove", settings.remove, name="member-remove"),
    path("settings/password", account.password_page, name="password"),
    path("settings/password/change", account.change_own_password, name="password-change"),
    path("settings/events", settings.event_list, name="events"),
    path("settings/events.csv", settings.events_csv, name="events-csv"),
]
