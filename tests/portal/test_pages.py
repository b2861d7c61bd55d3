"""Every page for the company itself: what a person must find on it, and that the states without data say so."""

import base64
import re
from datetime import UTC, datetime

import pytest

from ingestion.models import Workload
from portal.access import utc_now
from serving.models import Rollout
from tenants.models import ApiKey, Event, Tenant
from tenants.provision import create_key
from tenants.scope import acting_for
from tests.portal.conftest import Browser
from tests.portal.world import MARK, make_world


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


def test_a_key_is_shown_once_and_works_until_it_is_revoked(owner, company):
    answer = owner.submit("/keys/new", {"name": "checkout"}, on="/keys")
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
    ],
)
def test_a_provider_key_goes_only_where_it_is_safe(owner, settings, url, production, accepted):
    settings.PRODUCTION = production
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
