"""Walks the whole URL table as a rival, as nobody, and with the rival's key: not-yours and not-there look the same.

A new address fails here until somebody says which of the company's ids to try it with.
"""

import json
import re
from decimal import Decimal
from uuid import uuid4

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from ingestion.models import ErasedSubject, Erasure, Workload
from serving.limits import set_limit
from serving.models import Limit, Rollout
from tenants.models import ApiKey, Event, Membership, ProviderCredential, Tenant, WebhookEndpoint
from tenants.scope import acting_for
from tests.portal.conftest import log_in
from tests.portal.world import MARK, make_world

MINE, OPEN, COMPANY = "the caller's own", "for anybody, nothing of a tenant in it", "by the company's id"

# name → what it is; and for those by id, which of the company's.
PORTAL = {
    "overview": MINE,
    "overview-figures": MINE,
    "sign-up": OPEN,
    "log-in": OPEN,
    "log-in-demo": OPEN,
    "log-out": OPEN,
    "workloads": MINE,
    "workload": "workload",
    "workload-pipeline": "workload",
    "workload-examples": "workload",
    "workload-promise": "workload",
    "workload-logging": "workload",
    "rollout-approve": "rollout",
    "rollout-hold": "rollout",
    "rollout-resume": "rollout",
    "rollout-back-to-teacher": "rollout",
    "calls": MINE,
    "call": "call",
    "call-bodies": "call",
    "keys": MINE,
    "key-new": MINE,
    "key-revoke": "key",
    "limits": MINE,
    "limit-new": MINE,
    "limit-remove": "limit",
    "savings": MINE,
    "statement": "statement",
    "statement-csv": "statement",
    "webhooks": MINE,
    "endpoint-new": MINE,
    "endpoint-disable": "endpoint",
    "endpoint-enable": "endpoint",
    "settings": MINE,
    "preferences": MINE,
    "credential-new": MINE,
    "credential-stance": "credential",
    "credential-remove": "credential",
    "model-route-new": MINE,
    "model-route-remove": MINE,
    "member-new": MINE,
    "member-role": "membership",
    "member-remove": "membership",
    "password": MINE,
    "password-change": MINE,
    "erasures": MINE,
    "erasure-new": MINE,
    "events": MINE,
    "events-csv": MINE,
}
API = {
    "tenant": MINE,
    "members": MINE,
    "member-role": "membership",
    "member-remove": "membership",
    "credentials": MINE,
    "credential-stance": "credential",
    "credential-remove": "credential",
    "model-routes": MINE,
    "model-route-remove": MINE,
    "keys": MINE,
    "key-revoke": "key",
    "events": MINE,
    "endpoints": MINE,
    "endpoint-disable": "endpoint",
    "endpoint-enable": "endpoint",
    "deliveries": "endpoint",
    "workloads": MINE,
    "workload": "workload",
    "workload-promise": "workload",
    "workload-logging": "workload",
    "workload-spend": "workload",
    "calls": MINE,
    "call": "call",
    "datasets": MINE,
    "dataset": "dataset",
    "erasures": MINE,
    "runs": MINE,
    "run": "run",
    "run-cancel": "run",
    "run-retry": "run",
    "adapters": MINE,
    "adapter": "adapter",
    "evaluations": MINE,
    "certificates": MINE,
    "rollouts": MINE,
    "rollout": "rollout",
    "rollout-approve": "rollout",
    "rollout-hold": "rollout",
    "rollout-resume": "rollout",
    "rollout-back-to-teacher": "rollout",
    "limits": MINE,
    "limit-remove": "limit",
    "statements": MINE,
    "statement": "statement",
    "statement-items": "statement",
    "invoices": MINE,
}
SITE = {name: OPEN for name in ("healthz", "readyz", "metrics", "admin-login", "schema", "api-docs")}
TABLES = {"portal": PORTAL, "api": API, "": SITE}
# What a form or a body must hold for the refusal to be about whose it is, and not about what it says.
BODY = {
    "reason": "x",
    "alpha": "0.3",
    "delta": "0.3",
    "promise": "per_call",
    "approval": "automatic",
    "stance": "allowed",
    "log_share": "0.5",
    "role": "owner",
    "subject": "anna@customer.example",
    "measure": "requests",
    "window": "day",
    "amount": "5",
}


def addresses(patterns=None, prefix="", space=""):
    """Every (namespace, name, path template) below the root; the admin is walked by its own test."""
    for pattern in patterns if patterns is not None else get_resolver().url_patterns:
        where = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if pattern.namespace != "admin":
                yield from addresses(pattern.url_patterns, where, pattern.namespace or space)
        elif isinstance(pattern, URLPattern):
            yield space, pattern.name, "/" + where


EVERY = sorted(addresses(), key=str)


def fill(template, value):
    return re.sub(r"<(?:uuid|int):id>", str(value), template)


def kind_of(space, name):
    return TABLES[space][name]


@pytest.fixture
def ids(company, now):
    world = make_world(company, now=now, calls=4)
    with acting_for(company.id):
        limit = set_limit(measure="spend", window="month", amount=Decimal(50), actor="test", now=now)
    return {**vars(world), "key": company.key.id, "limit": limit.id}


@pytest.fixture(autouse=True)
def quick(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def snapshot(company):
    """What a rival must not have been able to change."""
    with acting_for(company.id):
        return [
            list(model.objects.order_by("pk").values())
            for model in (
                *(ApiKey, Workload, Rollout, WebhookEndpoint, ProviderCredential, Membership, Tenant, Event),
                *(ErasedSubject, Erasure, Limit),
            )
        ]


def attempts(path, client, **headers):
    """The address by every method, as a form and as JSON."""
    yield client.get(path, **headers)
    yield client.post(path, BODY, **headers)
    yield client.post(path, json.dumps(BODY), content_type="application/json", **headers)
    yield client.put(path, json.dumps(BODY), content_type="application/json", **headers)
    yield client.patch(path, json.dumps(BODY), content_type="application/json", **headers)
    yield client.delete(path, **headers)


def test_every_address_is_in_the_table():
    assert [(space, name) for space, name, _ in EVERY if name not in TABLES.get(space, {})] == []
    assert {(space, name) for space, table in TABLES.items() for name in table} == {(s, n) for s, n, _ in EVERY}


def test_an_address_with_an_id_says_whose():
    for space, name, template in EVERY:
        assert ("<" in template) == (kind_of(space, name) not in (MINE, OPEN)), template


def test_a_rivals_session_finds_nothing_of_the_companys_at_any_address(company, rival, ids):
    before, client = snapshot(company), log_in(rival.user.email)
    client.handler.enforce_csrf_checks = False  # the token is not what protects the company here
    for space, name, template in EVERY:
        kind = kind_of(space, name)
        if name == "log-out":
            continue
        for answer in attempts(fill(template, ids.get(kind, "")), client):
            assert MARK not in answer.content.decode(), template
            if kind not in (MINE, OPEN):
                assert answer.status_code in (404, 405), (template, answer.status_code)
    assert snapshot(company) == before


def test_not_yours_looks_like_not_there(company, rival, ids):
    client = log_in(rival.user.email)
    for space, name, template in EVERY:
        kind = kind_of(space, name)
        if kind in (MINE, OPEN):
            continue
        nowhere = 10**9 if kind == "membership" else uuid4()
        theirs, none = client.get(fill(template, ids[kind])), client.get(fill(template, nowhere))
        token = re.compile(rb'value="[A-Za-z0-9]{64}"')
        assert (theirs.status_code, token.sub(b"", theirs.content)) == (
            none.status_code,
            token.sub(b"", none.content),
        ), template


def test_nobody_finds_nothing_of_the_companys_at_any_address(company, ids):
    before, client = snapshot(company), Client()
    for space, name, template in EVERY:
        kind = kind_of(space, name)
        for answer in attempts(fill(template, ids.get(kind, "")), client):
            assert MARK not in answer.content.decode(), template
            if kind is not OPEN:
                assert answer.status_code in (302, 401, 403, 405), (template, answer.status_code)
                assert answer.status_code != 302 or answer.headers["Location"].startswith("/login"), template
    assert snapshot(company) == before


def test_a_rivals_key_finds_nothing_of_the_companys_in_the_api(company, rival, ids):
    before = snapshot(company)
    headers = {"headers": {"authorization": f"Bearer {rival.minted.plain}"}}
    for space, name, template in EVERY:
        kind = kind_of(space, name)
        for answer in attempts(fill(template, ids.get(kind, "")), Client(), **headers):
            assert MARK not in answer.content.decode(), template
            if space == "api" and kind is not MINE:
                assert answer.status_code in (403, 404, 405), (template, answer.status_code)
    assert snapshot(company) == before


def test_the_company_itself_finds_its_own_at_each_of_them(company, ids):
    """Or the walks above would pass on a portal that shows nothing to anybody."""
    client, seen = log_in(company.user.email), 0
    for space, name, template in EVERY:
        kind = kind_of(space, name)
        if kind in ids:
            answer = client.get(fill(template, ids[kind]))
            assert answer.status_code in (200, 405), template
            seen += MARK in answer.content.decode()
    assert seen >= 10


def test_the_admin_is_closed_to_a_tenants_people(company):
    client = log_in(company.user.email)
    for path in ("/admin/", "/admin/tenants/tenant/", f"/admin/tenants/tenant/{company.id}/change/"):
        assert client.get(path).status_code == 302
