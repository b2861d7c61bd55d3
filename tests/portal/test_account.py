"""Coming in: sign-up, log-in with its throttle, log-out, the demo's one click, and what each role may change."""

import pytest
from django.contrib.auth import get_user_model

from portal.forms import CredentialForm
from portal.throttle import address_of
from tenants.models import Membership
from tenants.scope import acting_for
from tests.conftest import PASSWORD
from tests.portal.conftest import Browser, log_in


def sign_up(browser, **changed):
    data = {
        "company": "Harbour & Sons",
        "email": "Ann@harbour.example",
        "password": "blue cranes over water",
        **changed,
    }
    return browser.submit("/signup", data)


def test_signing_up_makes_an_owner_and_lets_them_in(database):
    browser = Browser()
    assert sign_up(browser).status_code == 302
    page = browser.get("/").content.decode()
    assert "Harbour &amp; Sons" in page
    assert Membership.across_tenants.get().role == "owner"


@pytest.mark.parametrize("bad", [{"password": "short"}, {"password": "password12"}, {"email": "x"}, {"company": ""}])
def test_a_sign_up_that_cannot_be_is_told_why(database, bad):
    answer = sign_up(Browser(), **bad)
    assert answer.status_code == 400
    assert 'class="error"' in answer.content.decode()
    assert not Membership.across_tenants.exists()


def test_an_address_signs_up_once(company):
    answer = sign_up(Browser(), email=company.user.email.upper())
    assert answer.status_code == 400 and "account already" in answer.content.decode()


def test_ten_failures_close_the_door_even_to_the_right_password(company):
    browser = Browser()
    for _ in range(10):
        assert browser.submit("/login", {"username": company.user.email, "password": "no"}).status_code == 400
    right = {"username": company.user.email, "password": PASSWORD}
    answer = browser.submit("/login", right)
    assert answer.status_code == 429
    assert "sessionid" not in browser.cookies


def test_one_address_does_not_sign_up_in_bulk(database):
    for number in range(20):
        assert sign_up(Browser(), email=f"p{number}@harbour.example").status_code == 302
    answer = sign_up(Browser(), email="one.more@harbour.example")
    assert answer.status_code == 400 and "Too many sign-ups" in answer.content.decode()


def test_nobody_is_let_in_uncounted(company, settings):
    down = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {"default": down}
    browser = Browser()
    assert browser.submit("/login", {"username": company.user.email, "password": PASSWORD}).status_code == 503
    assert sign_up(Browser()).status_code == 400


def test_behind_a_proxy_the_address_is_the_one_it_wrote_last(settings, rf):
    request = rf.get("/", headers={"x-forwarded-for": "6.6.6.6, 10.1.1.1"}, REMOTE_ADDR="192.168.0.9")
    assert address_of(request) == "192.168.0.9"
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert address_of(request) == "10.1.1.1"


def test_after_log_in_nobody_is_sent_to_another_site(company):
    browser = Browser()
    data = {"username": company.user.email, "password": PASSWORD, "next": "https://evil.example/"}
    assert browser.submit("/login", data).headers["Location"] == "/"


def test_logging_out_ends_it(owner):
    owner.submit("/logout", on="/")
    assert owner.get("/").headers["Location"].startswith("/login")


def test_the_demo_log_in_is_not_there_outside_the_demo(company, settings):
    assert Browser().submit("/login/demo", on="/login").status_code == 404
    settings.DEMO, settings.PRODUCTION = True, True
    assert Browser().submit("/login/demo", on="/login").status_code == 404


def test_the_demo_logs_in_with_one_click(company, settings):
    settings.DEMO = True
    browser = Browser()
    assert browser.submit("/login/demo", on="/login").status_code == 302
    assert "Northwind Freight" in browser.get("/").content.decode()


def test_a_person_without_a_tenant_sees_nothing(database):
    get_user_model().objects.create_user("lost@example.com", PASSWORD)
    assert log_in("lost@example.com").get("/").status_code == 403


def join(company, owner, role):
    data = {"email": f"{role}@northwind.example", "role": role, "password": PASSWORD}
    assert owner.submit("/settings/members", data, on="/settings").status_code == 302
    return log_in(f"{role}@northwind.example")


ALLOWED = {
    "engineer": {"keys/new", "promise", "hold", "examples", "bodies", "webhooks/new"},
    "finance": set(),
    "security": {"hold", "examples", "bodies", "credentials"},
}


@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_changes_what_it_may_and_nothing_else(role, owner, company, world):
    person = join(company, owner, role)
    tries = {
        "keys/new": ("/keys/new", {"name": "x"}),
        "promise": (
            f"/workloads/{world.workload}/promise",
            {"alpha": "0.05", "delta": "0.1", "promise": "per_answer", "approval": "tenant"},
        ),
        "hold": (f"/rollouts/{world.rollout}/hold", {"reason": "x"}),
        "examples": (f"/workloads/{world.workload}/examples", {}),
        "bodies": (f"/calls/{world.call}/bodies", {}),
        "webhooks/new": ("/webhooks/new", {"url": "https://hooks.example/y"}),
        "credentials": (
            "/settings/credentials",
            {"provider": "openai", "base_url": "https://a.example", "secret": "sk-12345678", "stance": "allowed"},
        ),
        "members": ("/settings/members", {"email": "n@x.example", "role": "owner", "password": PASSWORD}),
        "preferences": ("/settings/preferences", {"name": "x", "approval": "automatic"}),
    }
    done = {name for name, (path, data) in tries.items() if person.submit(path, data, on="/").status_code < 400}
    assert done == ALLOWED[role]


def test_the_last_owner_stays(owner, company):
    with acting_for(company.id):
        member = Membership.objects.get()
    owner.submit(f"/settings/members/{member.id}/remove", on="/settings")
    owner.submit(f"/settings/members/{member.id}/role", {"role": "finance"}, on="/settings")
    with acting_for(company.id):
        assert Membership.objects.get().role == "owner"


def test_a_removed_member_is_out_at_once(owner, company):
    person = join(company, owner, "engineer")
    assert person.get("/").status_code == 200
    with acting_for(company.id):
        member = Membership.objects.get(role="engineer")
    owner.submit(f"/settings/members/{member.id}/remove", on="/settings")
    assert person.get("/").status_code == 302


def test_a_members_role_is_changed(owner, company):
    join(company, owner, "engineer")
    with acting_for(company.id):
        member = Membership.objects.get(role="engineer")
    path = f"/settings/members/{member.id}/role"
    owner.submit(path, {"role": "emperor"}, on="/settings")
    owner.submit(path, {"role": "finance"}, on="/settings")
    with acting_for(company.id):
        assert Membership.objects.get(id=member.id).role == "finance"


def test_an_address_of_another_company_cannot_be_added(owner, company, rival):
    data = {"email": rival.user.email, "role": "engineer", "password": PASSWORD}
    assert owner.submit("/settings/members", data, on="/settings").status_code == 400


def test_in_production_a_provider_cannot_be_an_address_of_our_own(settings):
    settings.PRODUCTION = True
    typed = {"provider": "openai", "secret": "sk-12345678", "stance": "allowed"}
    for address in ("https://127.0.0.1:8790", "https://10.0.0.7", "https://169.254.169.254", "https://[::1]"):
        assert "base_url" in CredentialForm({**typed, "base_url": address}).errors
    assert CredentialForm({**typed, "base_url": "https://93.184.215.14"}).is_valid()
