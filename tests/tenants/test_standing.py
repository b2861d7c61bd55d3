"""Holds what the operator decides about a tenant: each once, with its event, and of no other tenant."""

from decimal import Decimal

import pytest
from django.db import IntegrityError

from tenants.models import Event, Tenant, tenant_ids
from tenants.scope import acting_for
from tenants.standing import UnableToAgree, agree_on_share, reinstate, suspend


def kinds(company):
    with acting_for(company.id):
        return list(Event.objects.filter(actor="operator:1").order_by("kind").values_list("kind", flat=True))


def test_a_suspended_tenant_is_left_out_by_the_stages_until_it_is_reinstated(company, rival, now):
    assert suspend(company.id, actor="operator:1", now=now)
    assert not suspend(company.id, actor="operator:1", now=now)
    assert tenant_ids() == [rival.id]
    assert reinstate(company.id, actor="operator:1", now=now)
    assert not reinstate(company.id, actor="operator:1", now=now)
    assert set(tenant_ids()) == {company.id, rival.id}
    assert kinds(company) == ["tenant.reinstated", "tenant.suspended"]
    assert kinds(rival) == []


def test_a_share_is_agreed_on_with_its_event_and_of_one_tenant_alone(company, rival, now):
    agree_on_share(company.id, share=Decimal("0.125"), actor="operator:1", now=now)
    shares = dict(Tenant.across_tenants.values_list("id", "savings_share"))
    assert shares == {company.id: Decimal("0.1250"), rival.id: None}
    with acting_for(company.id):
        assert Event.objects.get(kind="tenant.share_agreed").data == {"share": "0.125"}


@pytest.mark.parametrize("share", ["-0.0001", "1.0001", "NaN"])
def test_a_share_lies_between_nothing_and_all(company, now, share):
    with pytest.raises(UnableToAgree):
        agree_on_share(company.id, share=Decimal(share), actor="operator:1", now=now)
    assert kinds(company) == []


def test_the_database_itself_refuses_a_share_that_is_none(company):
    with pytest.raises(IntegrityError), acting_for(company.id):
        Tenant.objects.update(savings_share=Decimal("1.5"))
