"""Every page for the company itself: what a person must find on it, and that the states without data say so."""

import base64
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.models import Invoice, SavingsStatement
from ingestion.core.calls import body_context
from ingestion.models import Payload, Workload
from portal.access import utc_now
from serving.models import Deployment, Evaluation, Rollout
from tenants.core.sealing import seal
from tenants.models import ApiKey, Event, ProviderCredential, Tenant, WebhookEndpoint
from tenants.provision import create_key, data_key_in_force
from tenants.scope import acting_for
from tenants.standing import agree_on_share
from tests.portal.conftest import Browser
from tests.portal.world import MARK, make_streamed_call, make_world
from training.models import TrainingRun


def test_before_the_first_call_the_overview_shows_the_one_base_url(owner):
    page = owner.get("/").content.decode()
    assert 'base_url="http://127.0.0.1:8787/v1"' in page
    assert "from anthropic import Anthropic" in page


def test_the_overview_shows_the_figures_and_what_needs_attention(owner, company):
    make_world(company, now=utc_now())
    page = owner.get("/").content.decode()
    assert "$81.10" in page
    assert "68 %" in page
    assert "waits for your approval" in page
    assert 'src="data:image/svg+xml' in page


def test_no_page_holds_inline_script_or_style(owner, world, company):
    mine = (f"/workloads/{world.workload}", f"/calls/{world.call}", f"/savings/{world.statement}")
    lists = ("/", "/workloads", "/calls", "/keys", "/savings", "/webhooks", "/settings", "/settings/events")
    for path in (*mine, *lists, "/login", "/signup", "/nowhere"):
        answer = owner.get(path)
        text = answer.content.decode()
        assert "<style" not in text and " style=" not in text and not re.search(r"<script(?![^>]* src=)", text), path
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"], path


def test_a_workload_shows_its_pipeline_its_risk_and_its_promise(owner, world):
    page = owner.get(f"/workloads/{world.workload}").content.decode()
    for expected in ("Version 1 frozen", "Three arms compared", "Certified at threshold 0.700", "Shadow", "96 audits"):
        assert expected in page
    assert page.count("data:image/svg+xml") == 2
    chart = base64.b64decode(re.search(r"base64,([^\"]+)\"", page).group(1)).decode()
    assert "<svg" in chart and "<script" not in chart


def test_the_pipeline_refreshes_itself_and_the_page_only_when_the_state_moved(owner, world, company):
    page = owner.get(f"/workloads/{world.workload}").content.decode()
    poll = re.search(r'hx-get="([^"]+/pipeline[^"]*)"', page).group(1)
    assert "HX-Refresh" not in owner.get(poll).headers
    with acting_for(company.id):
        Rollout.objects.update(state="canary", share=0.05)
    assert owner.get(poll).headers["HX-Refresh"] == "true"


def test_examples_are_opened_for_the_owner_and_recorded(owner, world, company):
    answer = owner.submit(f"/workloads/{world.workload}/examples", on=f"/workloads/{world.workload}")
    page = answer.content.decode()
    assert f"Where is my {MARK} container?" in page
    assert "Route the message." not in page
    assert f"track_shipment &lt;b&gt;{MARK}&lt;/b&gt;" in page
    assert "differed" in page
    with acting_for(company.id):
        assert Event.objects.filter(kind="payloads.read", actor=f"user:{company.user.pk}").count() == 1


def test_a_call_shows_its_facts_and_opens_its_bodies_escaped(owner, world, company):
    path = f"/calls/{world.call}"
    closed = owner.get(path).content.decode()
    assert "gpt-4o-2024-08-06" in closed and "Where is my" not in closed
    opened = owner.submit(f"{path}/bodies", on=path).content.decode()
    assert "Where is my" in opened and "<b>zq" not in opened
    with acting_for(company.id):
        assert Event.objects.get(kind="payload.read").subject_id == str(world.call)


def test_calls_can_be_narrowed_and_paged(owner, company, now):
    make_world(company, now=now, calls=60)
    page = owner.get("/calls?arm=student").content.decode()
    assert page.count('class="tag student"') == 15 and 'class="tag teacher"' not in page
    first = owner.get("/calls").content.decode()
    older = re.search(r'href="(\?arm=[^"]+)"', first).group(1).replace("&amp;", "&")
    assert owner.get("/calls" + older).content.decode().count('<span class="tag') == 10


@pytest.mark.parametrize("junk", ["x", "2026_x", "_", "9999-99-99T00:00:00_00000000-0000-0000-0000-000000000000"])
def test_a_place_in_a_list_that_cannot_be_read_is_the_beginning(owner, world, junk):
    assert owner.get("/calls", {"before": junk, "arm": "'; --", "workload": "x"}).status_code == 200


def test_a_call_is_found_by_the_id_its_answer_carried(owner, world):
    assert owner.get("/calls", {"id": f" {world.call} "}).headers["Location"] == f"/calls/{world.call}"
    assert owner.get("/calls", {"id": "no id"}).status_code == 200


def test_a_streamed_call_shows_the_answer_its_events_add_up_to(owner, company, now):
    call_id = make_streamed_call(company, now)
    path = f"/calls/{call_id}"
    page = owner.submit(f"{path}/bodies", on=path).content.decode()
    assert '<pre class="body">a claim is &lt;open&gt;</pre>' in page


def test_a_call_without_kept_bodies_says_so(owner, world, company):
    with acting_for(company.id):
        Payload.objects.all().delete()
    path = f"/calls/{world.call}"
    assert "were not kept" in owner.submit(f"{path}/bodies", on=path).content.decode()


def test_a_body_that_is_not_of_its_dialect_is_shown_as_it_came(owner, world, company):
    with acting_for(company.id):
        sealed = seal(
            data_key_in_force(),
            b"<html>\xff bad gateway",
            context=body_context(str(world.call), str(company.id), "response"),
        )
        Payload.objects.filter(call_id=world.call).update(response_sealed=sealed)
    path = f"/calls/{world.call}"
    assert "&lt;html&gt;\ufffd bad gateway" in owner.submit(f"{path}/bodies", on=path).content.decode()


def test_a_key_is_shown_once_and_works_until_it_is_revoked(owner, company):
    answer = owner.submit("/keys/new", {"name": "checkout", "scope": "manage"}, on="/keys")
    plain = re.search(r'value="(us_[^"]+)"', answer.content.decode()).group(1)
    assert plain not in owner.get("/keys").content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    bearer = {"Authorization": f"Bearer {plain}"}
    assert Browser().get("/api/v1/tenant", headers=bearer).status_code == 200
    with acting_for(company.id):
        key = ApiKey.objects.get(name="checkout")
    owner.submit(f"/keys/{key.id}/revoke", on="/keys")
    assert Browser().get("/api/v1/tenant", headers=bearer).status_code == 401


def test_the_statement_adds_up_on_the_page_and_in_the_csv(owner, world):
    page = owner.get(f"/savings/{world.statement}").content.decode()
    for figure in ("$121.56", "$38.18", "$81.10", "$79.88", "$82.31", "$16.22", "20\u00a0%"):
        assert figure in page
    answer = owner.get(f"/savings/{world.statement}.csv")
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert f"'=gpt-4o {MARK}" in answer.content.decode()
    assert ",=" not in answer.content.decode()


def test_the_share_that_is_kept_is_stated_and_a_bad_one_refused(owner, world, company):
    path = f"/workloads/{world.workload}"
    assert owner.submit(f"{path}/logging", {"log_share": "0.1"}, on=path).status_code == 302
    for bad in ("-0.1", "1.1", "nan", ""):
        assert owner.submit(f"{path}/logging", {"log_share": bad}, on=path).status_code == 400
    with acting_for(company.id):
        assert Workload.objects.get(id=world.workload).log_share == 0.1
    assert "drawn at random" in owner.get(path).content.decode()


def test_the_promise_is_stated_and_a_bad_one_refused(owner, world, company):
    path = f"/workloads/{world.workload}"
    good = {"alpha": "0.02", "delta": "0.05", "promise": "per_call", "approval": "automatic"}
    assert owner.submit(f"{path}/promise", good, on=path).status_code == 302
    for bad in ({"alpha": "0"}, {"alpha": "nan"}, {"delta": "2"}, {"promise": "x"}, {"alpha": ""}):
        assert owner.submit(f"{path}/promise", {**good, **bad}, on=path).status_code == 400
    with acting_for(company.id):
        stated = Workload.objects.get()
        assert (stated.alpha, stated.delta, stated.promise, stated.approval) == (0.02, 0.05, "per_call", "automatic")


def test_a_rollout_is_approved_held_resumed_and_sent_back_by_hand(owner, world, company):
    page = f"/workloads/{world.workload}"

    def press(button, **data):
        assert owner.submit(f"/rollouts/{world.rollout}/{button}", data, on=page).status_code == 302
        with acting_for(company.id):
            return Rollout.objects.get()

    assert press("approve").approved_at is not None
    assert press("hold").state == "shadow", "a hold without a reason changes nothing"
    assert press("hold", reason="month end").state == "held"
    assert press("resume").state == "shadow"
    assert press("back-to-teacher", reason="enough").state == "rolled_back"
    with acting_for(company.id):
        kinds = set(Event.objects.filter(actor=f"user:{company.user.pk}").values_list("kind", flat=True))
    assert {"rollout.approved", "rollout.held", "rollout.shadow", "rollout.rolled_back"} <= kinds


def test_a_change_without_the_token_is_refused(owner, world, company):
    assert owner.post(f"/rollouts/{world.rollout}/hold", {"reason": "x"}).status_code == 403
    assert owner.get(f"/rollouts/{world.rollout}/hold").status_code == 405


def test_preferences_are_kept(owner, company):
    owner.submit("/settings/preferences", {"name": "Northwind AG", "approval": "automatic"}, on="/settings")
    with acting_for(company.id):
        tenant = Tenant.objects.get()
    assert (tenant.name, tenant.approval, tenant.log_content) == ("Northwind AG", "automatic", False)


@pytest.mark.parametrize(
    ("url", "production", "accepted"),
    [
        ("https://api.openai.com/v1/", True, True),
        ("http://127.0.0.1:9000", False, True),
        ("http://127.0.0.1:9000", True, False),
        ("http://api.openai.com", False, False),
        ("http://169.254.169.254", False, False),
        ("https://user:pass@api.openai.com", False, False),
        ("https://", False, False),
        ("https://[::1", False, False),
        ("ftp://127.0.0.1", False, False),
        ("javascript:alert(1)", False, False),
        ("https://api.openai.com?", False, False),
        ("https://api..openai.com", False, False),
        ("https://@api.openai.com", False, False),
        ("https://api.openai.com/#", False, False),
        ("http://127.0.0.1:8787", False, False),  # our own gateway
    ],
)
def test_a_provider_key_goes_only_where_it_is_safe(owner, settings, url, production, accepted):
    settings.PRODUCTION, settings.PROVIDER_ALLOW_PRIVATE = production, not production
    data = {"provider": "openai", "base_url": url, "secret": "sk-0123456789", "stance": "internal_only"}
    answer = owner.submit("/settings/credentials", data, on="/settings")
    assert answer.status_code == (302 if accepted else 400)
    assert "sk-0123456789" not in answer.content.decode()


def test_the_audit_trail_is_there_and_as_csv(owner, world):
    assert "tenant.signed_up" in owner.get("/settings/events").content.decode()
    assert "rollout.canary" in owner.get("/settings/events.csv").content.decode()


def test_an_endpoints_secret_is_shown_once(owner):
    answer = owner.submit("/webhooks/new", {"url": "https://hooks.example/x", "kinds": "rollout.full"}, on="/webhooks")
    assert "whsec_" in answer.content.decode()
    assert "whsec_" not in owner.get("/webhooks").content.decode()
    assert owner.submit("/webhooks/new", {"url": "ftp://x"}, on="/webhooks").status_code == 400


def test_empty_pages_say_what_comes(owner):
    for path, words in {
        "/workloads": "No workload has been found yet",
        "/calls": "No calls here",
        "/savings": "The first statement opens",
        "/webhooks": "Nothing has been delivered yet",
    }.items():
        assert words in owner.get(path).content.decode()


def test_failed_stages_are_told_with_their_reason(owner, world, company):
    with acting_for(company.id):
        from_now = datetime.now(UTC)
        rollout = Rollout.objects.select_related("certificate", "deployment__adapter").get()
        rollout.advance("rolled_back", from_now, share=0.0, reason="audits refute the promise")
        certificate = rollout.certificate
        certificate.certified, certificate.reason, certificate.more_rows_needed = False, "too few rows", 340
        certificate.save()
    page = owner.get(f"/workloads/{world.workload}").content.decode()
    assert "Back to the teacher" in page and "audits refute the promise" in page
    assert "About 340 more pairs" in page
    assert "audits refute the promise" in owner.get("/").content.decode()


def test_keys_made_elsewhere_are_listed_without_the_key(owner, company, now):
    with acting_for(company.id):
        _, minted = create_key(name="<script>x</script>", may_override=False, actor="test", now=now)
    page = owner.get("/keys").content.decode()
    assert minted.prefix in page and minted.plain not in page and "<script>x" not in page


def test_endpoints_are_switched_off_and_on(owner, world, company):
    for switch, disabled in (("disable", True), ("enable", False)):
        owner.submit(f"/webhooks/{world.endpoint}/{switch}", on="/webhooks")
        with acting_for(company.id):
            assert (WebhookEndpoint.objects.get().disabled_at is not None) is disabled


def test_a_stance_is_stated_and_a_forbidding_one_is_pointed_out(owner, world, company):
    path = f"/settings/credentials/{world.credential}/stance"
    owner.submit(path, {"stance": "forbidden"}, on="/settings")
    owner.submit(path, {"stance": "whatever"}, on="/settings")
    with acting_for(company.id):
        assert ProviderCredential.objects.get(id=world.credential).stance == "forbidden"
    assert "forbid training" in owner.get("/").content.decode()


def test_what_stands_still_is_pointed_out(owner, world, company):
    lately = datetime.now(UTC)
    with acting_for(company.id):
        Rollout.objects.update(state="held", held_from="canary")
        TrainingRun.objects.update(status="failed", finished_at=lately, error="out of memory")
        Deployment.objects.update(status="failed", changed_at=lately)
        WebhookEndpoint.objects.update(disabled_at=lately, straight_failures=10)
        ProviderCredential.objects.all().delete()
    page = owner.get("/").content.decode()
    for words in (
        "is on hold",
        "failed.",
        "could not be loaded",
        "failed again and again",
        "No provider key is stored",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        (Workload, {"verdict": "unsuitable"}, "Stays with the teacher"),
        (Workload, {"verdict": "not_yet"}, "Gathering calls"),
        (TrainingRun, {"status": "queued"}, "A LoRA student is queued"),
        (TrainingRun, {"status": "running", "progress": {"step": 30, "steps": 76, "loss": 0.31}}, "Step 30 of 76"),
        (TrainingRun, {"status": "failed", "error": "out of memory"}, "out of memory"),
        (Evaluation, {"status": "running"}, "rows it has never seen"),
        (Evaluation, {"status": "failed", "error": "encoder down"}, "encoder down"),
        (Rollout, {"state": "held", "held_from": "shadow"}, "On hold"),
        (Rollout, {"state": "full", "share": 1.0}, "Full"),
    ],
)
def test_each_state_of_the_pipeline_is_told_in_words(owner, world, company, model, change, words):
    with acting_for(company.id):
        model.objects.update(**change)
    assert words in owner.get(f"/workloads/{world.workload}/pipeline").content.decode()


def test_a_workload_that_was_only_just_found_has_a_page(owner, company, now):
    with acting_for(company.id):
        facts = {"slug": "x", "name": "X", "kind": "json", "dialect": "openai", "asked_model": "m"}
        workload = Workload.objects.create(**facts, found_at=now, looked_at=now)
    page = owner.get(f"/workloads/{workload.id}").content.decode()
    assert "Frozen when enough pairs have gathered" in page
    assert "Audits begin when" in page


def test_the_welcome_page_gives_way_to_the_figures_at_the_first_call(owner, company, now):
    poll = re.search(r'hx-get="([^"]+waiting=1)"', owner.get("/").content.decode()).group(1)
    assert owner.get(poll).status_code == 204
    make_streamed_call(company, now)
    assert owner.get(poll).headers["HX-Refresh"] == "true"


def test_an_address_that_only_takes_a_form_shows_the_way_back(owner, world):
    for path in ("/keys/new", f"/calls/{world.call}/bodies", f"/workloads/{world.workload}/examples"):
        answer = owner.get(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert "To the overview" in answer.content.decode()


def test_a_form_from_an_old_page_is_told_so(owner, company):
    answer = owner.post("/keys/new", {"name": "x"})
    assert answer.status_code == 403 and "This page was too old" in answer.content.decode()


def test_what_finds_nothing_says_so_and_leads_back(owner, world):
    page = owner.get("/calls", {"id": "no id"}).content.decode()
    assert "That is no call’s id." in page
    page = owner.get("/calls", {"before": "1990-01-01T00:00:00+00:00_00000000-0000-0000-0000-000000000000"})
    assert '<a href="/calls">Show all calls</a>' in page.content.decode()


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "20\u00a0%"), (Decimal("0.125"), "12.5\u00a0%"), (Decimal(0), "0\u00a0%")]
)
def test_the_share_that_was_agreed_on_is_on_the_savings_page(owner, company, now, share, shown):
    agree_on_share(company.id, share=share, actor="operator:1", now=now)
    assert f"Our share is {shown}" in owner.get("/savings").content.decode()


@pytest.mark.parametrize(
    ("status", "fee", "words"), [("closed", 0, "Nothing to invoice"), ("closed", 1, "To be invoiced")]
)
def test_a_statement_without_an_invoice_says_what_comes(owner, company, world, status, fee, words):
    with acting_for(company.id):
        Invoice.objects.all().delete()
        SavingsStatement.objects.update(status=status, fee=fee)
    assert words in owner.get(f"/savings/{world.statement}").content.decode()
