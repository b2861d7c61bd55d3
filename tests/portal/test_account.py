"""Coming in: sign-up, log-in with its throttle, log-out, the demo's one click, and what each role may change."""

import re

import pytest
from django.contrib.auth import get_user_model

from portal.forms import CredentialForm
from portal.throttle import account_of, address_of, count_try, is_throttled
from tenants.models import ApiKey, Event, Membership
from tenants.scope import acting_for
from tenants.standing import reinstate, suspend
from tests.conftest import PASSWORD
from tests.portal.conftest import Browser, log_in
from tests.portal.world import MARK


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


def fail_from_everywhere(email):
    for number in range(30):
        count_try("failed-log-in-to-account", account_of(email))
        stranger = Browser()
        stranger.defaults["REMOTE_ADDR"] = f"203.0.113.{number}"
        yield stranger


def test_an_account_that_many_addresses_guess_at_is_closed_to_strangers_and_open_to_a_device_it_knows(company, rival):
    at_home = log_in(company.user.email)
    at_home.submit("/logout", on="/")
    right = {"username": company.user.email, "password": PASSWORD}
    wrong = {**right, "username": f" {company.user.email.upper()} ", "password": "no"}
    *_, stranger = fail_from_everywhere(company.user.email)
    assert stranger.submit("/login", wrong).status_code == 429
    assert stranger.submit("/login", right).status_code == 429
    assert at_home.submit("/login", right).status_code == 302
    assert log_in(rival.user.email).get("/").status_code == 200, "another account is not concerned"


def test_a_device_of_one_account_is_a_stranger_to_another(company, rival):
    with_rival = log_in(rival.user.email)
    with_rival.submit("/logout", on="/")
    *_, _ = fail_from_everywhere(company.user.email)
    assert with_rival.submit("/login", {"username": company.user.email, "password": PASSWORD}).status_code == 429


def test_a_known_device_has_as_many_tries_as_all_strangers_and_is_known_until_the_password_changes(company):
    at_home, wrong = log_in(company.user.email), {"username": company.user.email, "password": "no"}
    at_home.submit("/logout", on="/")
    for number in range(30):
        at_home.defaults["REMOTE_ADDR"] = f"203.0.113.{number}"
        assert at_home.submit("/login", wrong).status_code == 400
    at_home.defaults["REMOTE_ADDR"] = "203.0.113.99"
    assert at_home.submit("/login", {**wrong, "password": PASSWORD}).status_code == 429
    elsewhere = log_in(company.user.email)
    elsewhere.submit("/logout", on="/")
    company.user.set_password("another-long-password-7")
    company.user.save()
    *_, _ = fail_from_everywhere(company.user.email)
    assert elsewhere.submit("/login", {**wrong, "password": "another-long-password-7"}).status_code == 429


def test_the_addresses_of_one_ipv6_network_are_one(rf):
    def seen(address):
        return address_of(rf.get("/", REMOTE_ADDR=address))

    assert seen("2001:db8::1") == seen("2001:db8::ffff:1") != seen("2001:db8:0:1::1")
    assert seen("::ffff:203.0.113.5") == seen("203.0.113.5")


def test_failures_are_counted_for_the_account_wherever_they_come_from(company):
    for number in range(30):
        browser = Browser()
        browser.defaults["REMOTE_ADDR"] = f"203.0.113.{number}"
        assert browser.submit("/login", {"username": company.user.email, "password": "no"}).status_code == 400
    assert is_throttled("failed-log-in-to-account", account_of(company.user.email))


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
        "keys/new": ("/keys/new", {"name": "x", "scope": "calls"}),
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


def test_what_the_only_owner_cannot_do_is_not_offered(owner, company):
    def removable() -> int:
        return len(re.findall(r"/settings/members/\d+/remove", owner.get("/settings").content.decode()))

    assert removable() == 0
    join(company, owner, "engineer")
    assert removable() == 1
    with acting_for(company.id):
        Membership.objects.update(role="owner")
    assert removable() == 2


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
    settings.PRODUCTION, settings.PROVIDER_ALLOW_PRIVATE = True, False
    typed = {"provider": "openai", "secret": "sk-12345678", "stance": "allowed"}
    for address in ("https://127.0.0.1:8790", "https://10.0.0.7", "https://169.254.169.254", "https://[::1]"):
        assert "base_url" in CredentialForm({**typed, "base_url": address}).errors
    assert CredentialForm({**typed, "base_url": "https://93.184.215.14"}).is_valid()


OTHER = "another long enough one"


def change_password(person, **changed):
    data = {"old_password": PASSWORD, "new_password1": OTHER, "new_password2": OTHER, **changed}
    return person.submit("/settings/password/change", data, on="/settings/password")


def test_ten_wrong_guesses_at_the_old_password_end_the_guessing(owner):
    for _ in range(10):
        assert change_password(owner, old_password="guess").status_code == 400
    right, wrong = change_password(owner), change_password(owner, old_password="guess")
    assert (right.status_code, wrong.status_code) == (429, 429)
    assert "incorrectly" not in wrong.content.decode()


def test_a_person_changes_their_password_and_stays_logged_in_here_alone(owner, company):
    elsewhere = log_in(company.user.email)
    assert "/settings/password" in owner.get("/settings").content.decode()
    assert change_password(owner).status_code == 302
    assert owner.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
    assert Browser().submit("/login", {"username": company.user.email, "password": PASSWORD}).status_code == 400
    assert Browser().submit("/login", {"username": company.user.email, "password": OTHER}).status_code == 302
    with acting_for(company.id):
        event = Event.objects.get(kind="member.password_changed")
    assert (event.actor, event.subject_id, event.data) == (f"user:{company.user.pk}", str(company.user.pk), {})


@pytest.mark.parametrize(
    "bad", [{"old_password": "no"}, {"new_password2": "x"}, {"new_password1": "short", "new_password2": "short"}]
)
def test_a_password_that_cannot_be_is_told_why_and_never_shown(owner, company, bad):
    answer = change_password(owner, **bad)
    assert answer.status_code == 400
    page = answer.content.decode()
    assert 'class="error"' in page and PASSWORD not in page and OTHER not in page
    assert Browser().submit("/login", {"username": company.user.email, "password": PASSWORD}).status_code == 302


def test_a_suspended_company_reads_and_changes_nothing_until_it_is_reinstated(owner, company, world, now):
    suspend(company.id, actor="operator:1", now=now)
    for path in ("/", "/keys", "/settings", "/webhooks", f"/workloads/{world.workload}", f"/savings/{world.statement}"):
        page = owner.get(path).content.decode()
        assert "is suspended" in page
        forms = re.findall(r'<form method="post"[^>]* action="([^"]+)"', page)
        assert set(forms) <= {"/logout", f"/workloads/{world.workload}/examples"}, "what is left only reads"
    refused = owner.submit("/keys/new", {"name": "x"}, on="/keys")
    assert refused.status_code == 403 and "Not while suspended" in refused.content.decode()
    assert owner.submit(f"/rollouts/{world.rollout}/hold", {"reason": "x"}, on="/").status_code == 403
    assert change_password(owner).status_code == 302, "a person's own password is theirs"
    reinstate(company.id, actor="operator:1", now=now)
    assert owner.submit("/keys/new", {"name": "x", "scope": "calls"}, on="/keys").status_code == 200
    with acting_for(company.id):
        assert ApiKey.objects.count() == 2


@pytest.mark.parametrize(("role", "whole"), [("engineer", True), ("finance", False), ("security", False)])
def test_an_endpoints_whole_url_is_shown_to_those_who_may_manage_it(role, whole, owner, company, world):
    person = join(company, owner, role)
    page = person.get("/webhooks").content.decode()
    assert "https://hooks.example/" in page
    assert (f"https://hooks.example/{MARK}" in page) is whole


def test_who_may_not_is_shown_no_way_to_it(owner, company):
    page = join(company, owner, "finance").get("/").content.decode()
    assert "Three steps" in page and 'class="button"' not in page
