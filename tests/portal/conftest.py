"""The portal as people reach it: a real client with CSRF checks on, logged in through the log-in page."""

import re

import pytest
from django.core.cache import cache
from django.test import Client

from tests.conftest import PASSWORD
from tests.portal.world import make_world


class Browser(Client):
    """Posts forms the way a browser does: with the token of the page they are on."""

    def __init__(self):
        super().__init__(enforce_csrf_checks=True)

    def submit(self, path, data=None, *, on=None):
        page = self.get(on or path)
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())
        token = found.group(1) if found else ""
        return self.post(path, {**(data or {}), "csrfmiddlewaretoken": token})


def log_in(email):
    browser = Browser()
    answer = browser.submit("/login", {"username": email, "password": PASSWORD})
    assert answer.status_code == 302, answer.content
    return browser


@pytest.fixture(autouse=True)
def quick_and_forgetful(settings):
    """Passwords are hashed quickly, and nobody's failures outlive a test."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()


@pytest.fixture
def owner(company):
    return log_in(company.user.email)


@pytest.fixture
def stranger(rival):
    return log_in(rival.user.email)


@pytest.fixture
def world(company, now):
    return make_world(company, now=now)
