"""The web process from outside: its probes, its metrics, its schema, the operator's admin, Django's deploy check."""

import os
import subprocess
import sys
from decimal import Decimal

import pytest
import yaml
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client

from config.paths import ROOT
from tenants.models import Event, Tenant
from tenants.scope import acting_for
from tests.conftest import PASSWORD
from tests.portal.conftest import log_in
from tests.portal.world import MARK, make_world


def test_the_process_says_that_it_is_there_and_ready(database):
    assert Client().get("/healthz").status_code == 200
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"default": True, "door": True, "valkey": True})


def test_it_is_not_ready_without_valkey(database, settings):
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["valkey"]) == (503, False)


def test_the_metrics_count_views_and_name_no_id(company):
    log_in(company.user.email).get(f"/workloads/{company.id}")
    text = Client().get("/metrics").content.decode()
    assert 'understudy_web_requests_total{method="GET",status="404",view="portal:workload"}' in text
    assert str(company.id) not in text


def test_the_schema_is_openapi_3_1_and_names_every_route(database):
    schema = yaml.safe_load(Client().get("/api/schema").content)
    assert schema["openapi"] == "3.1.0"
    assert "/api/v1/rollouts/{id}/back-to-teacher" in schema["paths"]
    assert schema["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


def test_the_documentation_page_runs_no_inline_script(database):
    page = Client().get("/api/docs").content.decode()
    assert "<script>" not in page and "<style" not in page


@pytest.fixture
def operator(company):
    get_user_model().objects.create_superuser("ops@understudy.example", PASSWORD)
    return log_in("ops@understudy.example")


def pages():
    """Every registered model with the address of its pages."""
    for model, registered in admin.site._registry.items():
        if model._meta.app_label != "auth":
            yield model, registered, f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def test_every_list_of_the_operator_opens_and_can_be_searched_and_narrowed(operator, company, now):
    make_world(company, now=now, calls=4)
    for _, registered, address in pages():
        assert operator.get(address).status_code == 200, address
        queries = [{"q": "x"}] if registered.search_fields else []
        queries += [{f"{field}__exact": "x"} for field in registered.list_filter if field != "certified"]
        for query in queries:
            assert operator.get(address, query).status_code in (200, 302), (address, query)
    assert "Northwind Freight" in operator.get("/admin/tenants/tenant/").content.decode()
    assert MARK in operator.get("/admin/billing/savingsstatement/").content.decode()


def test_the_operator_reads_all_tenants_and_changes_nothing_of_theirs(operator, company, now):
    make_world(company, now=now, calls=4)
    for model, _, address in pages():
        assert operator.get(f"{address}add/").status_code == 403, address
        rows = getattr(model, "across_tenants", None) or model._default_manager
        key = rows.values_list("pk", flat=True).first()
        if key is not None:
            assert operator.get(f"{address}{key}/change/").status_code == 200, address
            assert operator.submit(f"{address}{key}/delete/").status_code == 403, address
            changed = operator.submit(f"{address}{key}/change/", {"name": "x"})
            assert changed.status_code == (302 if model is Tenant else 403), address
    assert Tenant.across_tenants.get().name == "Northwind Freight"


def test_the_operator_suspends_and_reinstates_with_an_event(operator, company, rival):
    address = "/admin/tenants/tenant/"
    for action, status in (("suspend_chosen", "suspended"), ("reinstate_chosen", "active")):
        chosen = {"action": action, "_selected_action": str(company.id), "index": "0"}
        assert operator.submit(address, chosen).status_code == 302
        assert Tenant.across_tenants.get(id=company.id).status == status
    assert Tenant.across_tenants.get(id=rival.id).status == "active"
    with acting_for(company.id):
        actors = dict(Event.objects.filter(kind__startswith="tenant.").values_list("kind", "actor"))
    assert actors["tenant.suspended"] == actors["tenant.reinstated"] == f"operator:{operator_id()}"


@pytest.mark.parametrize(("typed", "kept"), [("0.125", Decimal("0.125")), ("", None), ("1.1", None), ("-0.1", None)])
def test_the_operator_states_the_share_that_was_agreed_on(operator, company, typed, kept):
    operator.submit(f"/admin/tenants/tenant/{company.id}/change/", {"savings_share": typed})
    assert Tenant.across_tenants.get().savings_share == kept
    with acting_for(company.id):
        assert Event.objects.filter(kind="tenant.share_agreed").count() == (kept is not None)


def test_a_tenants_owner_cannot_act_as_the_operator(company):
    owner = log_in(company.user.email)
    chosen = {"action": "reinstate_chosen", "_selected_action": str(company.id), "index": "0"}
    assert owner.submit("/admin/tenants/tenant/", chosen, on="/").headers["Location"].startswith("/admin/login")
    answer = owner.submit(f"/admin/tenants/tenant/{company.id}/change/", {"savings_share": "0"}, on="/")
    assert answer.status_code == 302 and Tenant.across_tenants.get().savings_share is None


def operator_id():
    return get_user_model().objects.get(is_superuser=True).pk


def test_the_admin_sends_to_the_one_log_in(database):
    answer = Client().get("/admin/login/")
    assert answer.headers["Location"] == "/login?next=/admin/"


def test_djangos_deploy_check_is_clean():
    secret = os.urandom(40).hex()
    inherited = {name: value for name, value in os.environ.items() if name != "DEMO"}
    environment = {**inherited, "PRODUCTION": "1", "SECRET_KEY": secret, "ALLOWED_HOSTS": "portal.example"}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
