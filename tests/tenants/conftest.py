"""The API as a person's session and as a company's key reach it, with CSRF checks on."""

import json

import pytest
from django.test import Client

from tenants.models import Membership
from tenants.scope import acting_for


class Api(Client):
    """Speaks JSON to the API."""

    def __init__(self, **headers):
        super().__init__(enforce_csrf_checks=True, headers=headers)

    def read(self, path, status=200):
        answer = self.get(f"/api/v1/{path}")
        assert answer.status_code == status, answer.content
        return answer.json()

    def send(self, method, path, status, /, **data):
        answer = getattr(self, method)(f"/api/v1/{path}", json.dumps(data), content_type="application/json")
        assert answer.status_code == status, answer.content
        return answer.json() if answer.content else None


def sit_down(user):
    """A person's session whose requests carry the token."""
    token = "t" * 32
    person = Api(**{"x-csrftoken": token})
    person.force_login(user)
    person.cookies["csrftoken"] = token
    return person


@pytest.fixture
def owner(company):
    return sit_down(company.user)


@pytest.fixture
def stranger(rival):
    return sit_down(rival.user)


@pytest.fixture
def machine(company):
    return Api(authorization=f"Bearer {company.minted.plain}")


@pytest.fixture
def become(company):
    """Gives the company's one person another role, behind the rules' back."""

    def change(role):
        with acting_for(company.id):
            Membership.objects.update(role=role)

    return change
