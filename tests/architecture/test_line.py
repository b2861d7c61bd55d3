"""Holds the one line of apps: imports and foreign keys point down it, and each process imports only what is its own."""

import ast
import os
import shutil
import subprocess
import sys

import pytest
from django.apps import apps

from tests.architecture.source import LINE, OUTSIDE, ROOT, functions, name_of, shipped

HEAVY = ("torch", "transformers", "peft", "numpy", "scipy", "sklearn", "pandas", "vllm")
FRAMEWORKS = ("django", "rest_framework", "celery", "kombu", "psycopg", "redis", "stripe")
OWN_MODELS = [model for model in apps.get_models(include_auto_created=True) if model.__module__.split(".")[0] in LINE]


def test_foreign_keys_point_down_the_line():
    """String references too, which import-linter cannot see."""
    upward = []
    for model in OWN_MODELS:
        for field in model._meta.get_fields(include_parents=False):
            if field.auto_created or not field.is_relation or field.related_model is None:
                continue
            target = field.related_model._meta.app_label
            if target in LINE and LINE.index(target) < LINE.index(model._meta.app_label):
                upward.append(f"{model._meta.label}.{field.name}")
    assert upward == []


def test_no_foreign_key_is_declared_to_what_the_registry_does_not_know():
    """A commented-out app would leave string references that nothing resolves."""
    assert {model._meta.app_label for model in OWN_MODELS} <= set(LINE)


def test_import_contracts_hold():
    tool = shutil.which("lint-imports", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    assert tool, "import-linter is among the development dependencies"
    found = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-2000:]


@pytest.mark.parametrize("module", ["serving.gateway.app", "serving.gateway.__main__", "serving.student"])
def test_the_gateway_process_loads_neither_a_framework_nor_a_model(module):
    assert loaded_by(module) & {*HEAVY, *FRAMEWORKS} <= {"redis"}  # by which limits are counted


@pytest.mark.parametrize("module", ["tenants.core.sealing", "ingestion.core.dialects", "ingestion.spool"])
def test_what_the_gateway_stands_on_is_plain_python(module):
    assert loaded_by(module) & {*HEAVY, *FRAMEWORKS} == set()


def test_the_web_process_loads_no_model_library():
    assert loaded_by("config.urls", django=True) & {"torch", "transformers", "peft", "vllm"} == set()


def test_nothing_that_is_shipped_imports_tests_demo_or_bench():
    outside = {*OUTSIDE, "tests"}
    offenders = {
        module.path
        for module in shipped()
        for node in ast.walk(module.tree)
        for imported in imported_by(node)
        if imported.split(".")[0] in outside
    }
    assert offenders == set()


def test_stripe_is_imported_in_one_file():
    users = {
        module.path
        for module in shipped()
        for node in ast.walk(module.tree)
        for imported in imported_by(node)
        if imported.split(".")[0] == "stripe"
    }
    assert users <= {"billing/stripe_api.py"}


def test_cores_read_no_clock_and_draw_no_chance():
    """What varies is handed in; sealing's nonce is the one exception, since a nonce chosen outside could repeat."""
    forbidden = {"now", "utcnow", "today", "time", "monotonic", "perf_counter", "urandom", "uuid4", "random", "getenv"}
    offenders = {
        f"{module.path}:{name_of(node)}"
        for module in shipped()
        if "/core/" in module.path and module.path != "tenants/core/sealing.py"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and name_of(node) in forbidden
        if isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"datetime", "time", "os", "uuid", "random", "date"}
    }
    assert offenders == set()


def test_verbs_take_the_time_and_do_not_ask_for_it():
    """Edges read the clock: tasks, API, admin, pages, commands, processes."""
    offenders = {
        f"{module.path}:{function.name}"
        for module in shipped()
        if module.path.split("/")[0] in {"tenants", "ingestion", "training", "serving", "billing"}
        for function in functions(module.tree)
        if "now" in {argument.arg for argument in function.args.kwonlyargs}
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"datetime.now", "timezone.now", "datetime.utcnow"}
    }
    assert offenders == set()


def imported_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def loaded_by(module: str, *, django: bool = False) -> set[str]:
    """Top-level packages in memory once a fresh interpreter has imported a module."""
    start = "import django; django.setup(); " if django else ""
    script = f"{start}import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return set(found.stdout.split())
