"""A person's first minutes in a real browser: sign-up, a provider, a key, and each page as it looks, light and dark."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.utils import timezone

from config.paths import state_dir
from tenants.models import ApiKey, Membership
from tenants.provision import store_credential
from tenants.scope import acting_for
from tests.conftest import Company
from tests.portal.world import make_world

pytestmark = pytest.mark.browser
CHROMIUM = "/usr/bin/chromium"
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


class Silent(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Threaded(WSGIServer):
    """One thread a request, as the browser asks for several things at once."""

    def process_request(self, request, address):
        threading.Thread(target=self._answer, args=(request, address), daemon=True).start()

    def _answer(self, request, address):
        try:
            self.finish_request(request, address)
        finally:
            self.shutdown_request(request)


@pytest.fixture
def portal(database, settings):
    settings.DEMO = True
    server = make_server("127.0.0.1", 0, get_wsgi_application(), server_class=Threaded, handler_class=Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture
def page(scheme):
    if not os.path.exists(CHROMIUM):
        pytest.skip("chromium is absent")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900})
        opened = context.new_page()
        opened.complaints = []
        opened.on(
            "console", lambda message: opened.complaints.append(message.text) if message.type == "error" else None
        )
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        yield opened
        browser.close()


def shoot(page, name):
    folder = state_dir(os.environ) / "screens"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def beside(work):
    """Do database work on a thread of its own: the browser's driver keeps an event loop on this one."""

    def carried_out():
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(carried_out).result()


def the_company():
    """The one that just signed up, with the key it made."""
    member = Membership.across_tenants.select_related("tenant", "user").get()
    with acting_for(member.tenant_id):
        key = ApiKey.objects.first()
    return Company(member.tenant, member.user, key, None)


def set_a_route(portal, page, scheme):
    page.goto(f"{portal}/settings")
    page.click("summary:has-text('Set a route')")
    page.fill("[name=asked_model]", "smart")
    page.select_option("[name=first]", label="openai")
    page.fill("[name=first_model]", "gpt-4o")
    shoot(page, f"{scheme}-route")
    page.click("button:has-text('Set it')")
    assert "openai as gpt-4o" in page.inner_text("#routes table")


def test_a_person_signs_up_makes_a_key_and_finds_their_way(portal, page, scheme):
    page.goto(portal)
    assert page.url.endswith("/login?next=/")
    shoot(page, f"{scheme}-log-in")
    page.click("text=Sign up")
    page.fill("[name=company]", "Northwind Freight")
    page.fill("[name=email]", "owner@northwind.example")
    page.fill("[name=password]", "short")
    page.click("button:has-text('Sign up')")
    assert "too short" in page.inner_text(".error")
    shoot(page, f"{scheme}-sign-up-refused")
    page.fill("[name=password]", "blue cranes over water")
    page.click("button:has-text('Sign up')")
    assert "Three steps" in page.inner_text("h1")
    shoot(page, f"{scheme}-welcome")

    page.click("text=Store it")
    page.fill("[name=base_url]", "http://127.0.0.1:9")
    page.fill("[name=secret]", "sk-0123456789")
    page.click("text=Seal it")
    assert "internal only" in page.inner_text("#providers .tag")
    page.goto(f"{portal}/keys")
    page.fill("[name=name]", "checkout, production")
    page.click("button:has-text('Make a key')")
    assert page.input_value(".secret").startswith("us_")
    shoot(page, f"{scheme}-key")

    world = beside(lambda: make_world(the_company(), now=timezone.now(), calls=40))
    page.goto(portal)
    page.wait_for_selector(".tile")
    assert "$81.10" in page.inner_text(".tile.good")
    shoot(page, f"{scheme}-overview")
    page.goto(f"{portal}/workloads")
    shoot(page, f"{scheme}-workloads")
    page.click("h2 a")
    page.click("text=Open examples")
    page.wait_for_selector("table.examples")
    shoot(page, f"{scheme}-workload")
    page.click("summary:has-text('Approve')")
    page.click("text=Yes, approve")
    assert "Approved." in page.inner_text(".flash")
    page.click("summary:has-text('Hold')")
    page.fill("#why-hold", "month end")
    page.click("text=Yes, hold")
    assert "On hold" in page.inner_text(".flash")
    shoot(page, f"{scheme}-held")
    page.goto(f"{portal}/limits")
    page.fill("[name=amount]", "500")
    page.click("button:has-text('Set the limit')")
    page.select_option("[name=measure]", "requests")
    page.fill("[name=amount]", "60")
    page.select_option("[name=window]", "minute")
    page.select_option("[name=key]", index=1)
    page.click("button:has-text('Set the limit')")
    assert "$500.00 a month" in page.inner_text("table")
    shoot(page, f"{scheme}-limits")
    set_a_route(portal, page, scheme)
    for name, path in {
        "calls": "/calls",
        "call": f"/calls/{world.call}",
        "savings": "/savings",
        "statement": f"/savings/{world.statement}",
        "webhooks": "/webhooks",
        "settings": "/settings",
        "events": "/settings/events",
        "not-here": "/nowhere",
    }.items():
        page.goto(portal + path)
        shoot(page, f"{scheme}-{name}")
    page.goto(f"{portal}/api/docs")
    page.wait_for_selector(".swagger-ui .opblock")
    assert [text for text in page.complaints if "404" not in text and "400" not in text] == []


def test_the_pages_fit_a_telephone(portal, page, scheme):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{portal}/signup")
    page.fill("[name=company]", "Northwind Freight")
    page.fill("[name=email]", "owner@northwind.example")
    page.fill("[name=password]", "blue cranes over water")
    page.click("button:has-text('Sign up')")
    page.goto(f"{portal}/keys")
    page.fill("[name=name]", "first")
    page.click("button:has-text('Make a key')")
    world = beside(lambda: make_world_with_credential(the_company()))
    for name, path in {
        "overview": "/",
        "workload": f"/workloads/{world.workload}",
        "calls": "/calls",
        "limits": "/limits",
        "settings": "/settings",
    }.items():
        page.goto(portal + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        shoot(page, f"{scheme}-phone-{name}")


def make_world_with_credential(company):
    with acting_for(company.id):
        store_credential(
            provider="openai",
            base_url="http://127.0.0.1:9",
            secret="sk-0123456789",
            stance="allowed",
            actor="test",
            now=timezone.now(),
        )
    return make_world(company, now=timezone.now())
