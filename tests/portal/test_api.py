"""The API for machines: what a key may read and change, pages by cursor, filters that reach nothing else."""

import json
import re

import pytest
import yaml
from django.test import Client

from config.api_urls import urlpatterns
from serving.models import Rollout
from tenants.models import Event, WebhookEndpoint
from tenants.provision import create_key
from tenants.scope import acting_for
from tenants.standing import suspend
from tests.portal.world import MARK, make_world
from training.models import TrainingRun


class Machine(Client):
    """A client that sends the company's key with everything, and JSON."""

    def __init__(self, company):
        super().__init__(enforce_csrf_checks=True, headers={"authorization": f"Bearer {company.minted.plain}"})

    def read(self, path, status=200):
        answer = self.get(f"/api/v1/{path}")
        assert answer.status_code == status, answer.content
        return answer.json()

    def send(self, path, data=None, method="post"):
        return getattr(self, method)(f"/api/v1/{path}", json.dumps(data or {}), content_type="application/json")


@pytest.fixture
def machine(company, world):
    return Machine(company)


def test_everything_that_the_portal_shows_can_be_read(machine, world):
    learning = "workloads calls datasets runs adapters evaluations certificates rollouts"
    around = f"keys members credentials endpoints endpoints/{world.endpoint}/deliveries events"
    money = f"statements statements/{world.statement}/items invoices"
    for path in f"{learning} {around} {money}".split():
        assert machine.read(path)["results"], path
    for noun in ("workload", "call", "dataset", "run", "adapter", "rollout", "statement"):
        assert machine.read(f"{noun}s/{getattr(world, noun)}")["id"] == str(getattr(world, noun))
    assert machine.read(f"workloads/{world.workload}/spend")["workload_id"] == str(world.workload)


def test_the_schema_is_openapi_3_1_and_names_every_route_with_its_methods_and_no_other(database):
    schema = yaml.safe_load(Client().get("/api/schema").content)
    assert schema["openapi"] == "3.1.0"
    methods = {"get", "post", "put", "patch", "delete"}
    described = {path: methods & set(operations) for path, operations in schema["paths"].items()}
    assert described == {
        "/api/v1/" + re.sub(r"<\w+:(\w+)>", r"{\1}", str(route.pattern)): {
            method for method in methods if hasattr(route.callback.view_class, method)
        }
        for route in urlpatterns
    }
    operations = [schema["paths"][path][method] for path, offered in described.items() for method in offered]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert [one["operationId"] for one in operations if {"key": []} not in one["security"]] == []


def test_no_answer_holds_a_body_a_secret_or_a_digest(machine, world, company):
    everything = json.dumps(
        [
            machine.read(path)
            for path in ("calls", "keys", "endpoints", "credentials", "members", "datasets", "adapters", "tenant")
        ]
    )
    for secret in (
        "sealed",
        "password",
        "sk-openai",
        "Where is my",
        company.minted.plain,
        company.minted.digest,
        "whsec_",
        "artifact_key",
    ):
        assert secret not in everything


def test_a_failed_run_can_be_retried_once_at_a_time(machine, world, company):
    assert machine.send(f"runs/{world.run}/retry").status_code == 409
    with acting_for(company.id):
        TrainingRun.objects.filter(id=world.run).update(status="failed")
    queued = machine.send(f"runs/{world.run}/retry")
    assert (queued.status_code, queued.json()["status"]) == (201, "queued")
    assert queued.json()["id"] != str(world.run)
    assert machine.send(f"runs/{world.run}/retry").status_code == 409


def test_money_is_exact_text(machine, world):
    assert machine.read(f"statements/{world.statement}")["saving"] == "81.1011900000"


def test_calls_come_a_page_at_a_time_each_once(company, now):
    make_world(company, now=now, calls=25)
    machine, seen, path = Machine(company), [], "/api/v1/calls?limit=10"
    while path:
        page = machine.get(path).json()
        seen += [call["id"] for call in page["results"]]
        path = page["next"]
    assert len(seen) == len(set(seen)) == 25


def test_calls_are_narrowed_by_what_is_offered_and_by_nothing_else(machine, world):
    assert {call["arm"] for call in machine.read("calls?arm=student")["results"]} == {"student"}
    assert machine.read("calls?workload=00000000-0000-0000-0000-000000000000")["results"] == []
    assert machine.read("calls?since=2030-01-01T00:00:00Z")["results"] == []
    for bad in ("arm=x", "workload=1", "since=yesterday"):
        machine.read(f"calls?{bad}", status=400)
    everything = machine.read("calls")["results"]
    assert machine.read("calls?key_id__gt=0&tenant__name=x&ordering=tenant__data_key_sealed")["results"] == everything


def test_a_rollout_is_steered_and_a_late_hand_is_told(machine, world, company):
    path = f"rollouts/{world.rollout}"
    assert machine.send(f"{path}/approve").json()["approved_at"]
    assert machine.send(f"{path}/approve").status_code == 409
    assert machine.send(f"{path}/hold").status_code == 400
    assert machine.send(f"{path}/hold", {"reason": "month end"}).json()["state"] == "held"
    assert machine.send(f"{path}/resume").json()["state"] == "shadow"
    assert machine.send(f"{path}/back-to-teacher", {"reason": "enough"}).json()["state"] == "rolled_back"
    assert machine.send(f"{path}/resume").status_code == 409
    with acting_for(company.id):
        assert Event.objects.filter(kind="rollout.held", actor=f"key:{company.key.id}").exists()
        assert Rollout.objects.get().state == "rolled_back"


def test_no_key_states_how_much_is_kept(machine, world):
    assert machine.send(f"workloads/{world.workload}/logging", {"log_share": 0}, "put").status_code == 403


def test_the_promise_is_stated_within_its_range(machine, world):
    good = {"alpha": 0.02, "delta": 0.05, "promise": "per_call", "approval": "ask_first"}
    assert machine.send(f"workloads/{world.workload}/promise", good, "put").json()["alpha"] == 0.02
    for bad in ({"alpha": 0}, {"alpha": 1}, {"delta": "x"}, {"promise": "x"}, {"approval": None}):
        assert machine.send(f"workloads/{world.workload}/promise", {**good, **bad}, "put").status_code == 400


def test_a_key_cannot_make_itself_a_successor(machine, world, company):
    assert machine.send("keys", {"name": "mine"}).status_code == 403
    assert machine.send(f"keys/{company.key.id}/revoke").status_code == 403
    assert machine.send("endpoints", {"url": "https://evil.example/"}).status_code == 403
    assert machine.send(f"endpoints/{world.endpoint}/disable").status_code == 403
    eva = {"email": "eva@evil.example", "role": "owner", "password": "a long enough password"}
    assert machine.send("members", eva).status_code == 403
    elsewhere = {"provider": "openai", "base_url": "https://evil.example", "secret": "sk-12345678", "stance": "allowed"}
    assert machine.send("credentials", elsewhere).status_code == 403


def test_a_persons_session_makes_and_revokes_keys_with_the_token(owner, company):
    headers = {"x-csrftoken": owner.cookies["csrftoken"].value}
    body = {"data": json.dumps({"name": "ci"}), "content_type": "application/json"}
    assert owner.post("/api/v1/keys", **body).status_code == 403
    made = owner.post("/api/v1/keys", **body, headers=headers)
    assert made.status_code == 201 and made.json()["plain"].startswith("us_")
    revoked = owner.post(f"/api/v1/keys/{made.json()['id']}/revoke", content_type="application/json", headers=headers)
    assert revoked.json().get("revoked_at"), revoked.content


def test_a_refused_change_leaves_nothing_behind(owner, company):
    headers = {"x-csrftoken": owner.cookies["csrftoken"].value}
    with acting_for(company.id):
        before = Event.objects.count()
    for url in ("http://hooks.example/", "https://user:pw@hooks.example/", "x"):
        answer = owner.post(
            "/api/v1/endpoints", json.dumps({"url": url}), content_type="application/json", headers=headers
        )
        assert answer.status_code == 400
    with acting_for(company.id):
        assert Event.objects.count() == before


@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer us_wrong", "Basic dTpw", "Bearer us_" + "é" * 43])
def test_without_a_key_in_force_nothing_is_answered(company, sent):
    headers = {"authorization": sent} if sent else {}
    assert Client(headers=headers).get("/api/v1/workloads").status_code == 401


def test_a_key_for_calls_neither_reads_nor_steers(company, world, now):
    with acting_for(company.id):
        key, minted = create_key(name="checkout", may_override=True, actor="test", now=now)
    assert key.scope == "calls"
    client = Client(headers={"authorization": f"Bearer {minted.plain}"})
    for path in ("tenant", "calls", "workloads", f"rollouts/{world.rollout}"):
        assert client.get(f"/api/v1/{path}").status_code == 403
    for path in (f"rollouts/{world.rollout}/approve", f"rollouts/{world.rollout}/hold", "keys"):
        assert client.post(f"/api/v1/{path}", {"reason": "x"}, content_type="application/json").status_code == 403
    with acting_for(company.id):
        assert Rollout.objects.get().state == "shadow" and Rollout.objects.get().approved_at is None


def test_a_suspended_tenants_key_reads_and_steers_nothing(machine, world, company, now):
    suspend(company.id, actor="operator:1", now=now)
    assert machine.read("tenant")["status"] == "suspended"
    assert machine.read("statements")["results"]
    refused = machine.send(f"rollouts/{world.rollout}/approve")
    assert (refused.status_code, refused.json()["detail"]) == (403, "the tenant is suspended")
    with acting_for(company.id):
        assert Rollout.objects.get().approved_at is None


def test_a_keys_scope_is_chosen_and_listed(owner, company):
    headers = {"x-csrftoken": owner.cookies["csrftoken"].value}
    for asked, status, scope in (({}, 201, "calls"), ({"scope": "manage"}, 201, "manage"), ({"scope": "all"}, 400, "")):
        body = json.dumps({"name": "ci", **asked})
        made = owner.post("/api/v1/keys", body, content_type="application/json", headers=headers)
        assert made.status_code == status
        assert status == 400 or made.json()["scope"] == scope


def test_an_endpoints_whole_url_is_for_those_who_may_manage_it(machine, owner, world, company):
    with acting_for(company.id):
        url = WebhookEndpoint.objects.get().url
    assert MARK in url
    assert machine.read("endpoints")["results"][0]["url"] == "https://hooks.example/…"
    assert owner.get("/api/v1/endpoints").json()["results"][0]["url"] == url
