"""The web process from outside: its probes, its metrics, its schema, the operator's admin, Django's deploy check."""

import os
import subprocess
import sys

import pytest
import yaml
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client

from config.paths import ROOT
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


def test_the_operator_reads_all_tenants_and_changes_none(operator, company, now):
    make_world(company, now=now, calls=4)
    for model in admin.site._registry:
        label = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        if model._meta.app_label == "auth":
            continue
        assert operator.get(label).status_code == 200, label
        assert operator.get(label + "add/").status_code == 403, label
        row = (getattr(model, "across_tenants", None) or model._default_manager).first()
        if row is not None:
            assert operator.get(f"{label}{row.pk}/change/").status_code == 200, label
            assert operator.submit(f"{label}{row.pk}/change/", {"name": "x"}).status_code == 403, label
    assert "Northwind Freight" in operator.get("/admin/tenants/tenant/").content.decode()
    assert MARK in operator.get("/admin/billing/savingsstatement/").content.decode()


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
