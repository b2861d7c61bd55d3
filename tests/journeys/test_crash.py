"""Holds that a gateway killed with a thousand calls in flight lost none that was answered: the log has each once."""

import asyncio
from collections import Counter

from config import processes
from ingestion.models import Call
from tenants.models import ProviderCredential
from tenants.scope import acting_for
from tests.conftest import make_company
from tests.fakes.serve import Served, wait_for
from tests.fakes.teacher import Teacher
from tests.journeys.conftest import start_gateway
from tests.serving.gateway.crowd import IN_FLIGHT, cut_off


def test_every_answer_before_a_kill_is_in_the_log_once_after_it(database, household, ports):
    company = make_company("Northwind Freight", "owner@northwind.example")
    key, url = company.minted.plain, f"http://127.0.0.1:{ports.gateway}"
    with Served(Teacher()) as teacher:
        with acting_for(company.id):
            ProviderCredential.objects.update(base_url=teacher.url)
        start_gateway(household, ports, key=key)
        whole = asyncio.run(cut_off(url, key=key, cut=lambda: household.kill("gateway")))
        household.start(processes.gateway(ports))
        household.wait_ready("gateway")
        after = asyncio.run(cut_off(url, key=key, cut=lambda: household.kill("gateway")))
    answered = set(whole) | set(after)
    assert len(whole) >= IN_FLIGHT and len(answered) == len(whole) + len(after)
    wait_for(lambda: answered <= set(logged(company)), patience=60, every=0.2)
    assert set(logged(company).values()) == {1}


def logged(company) -> Counter[str]:
    with acting_for(company.id):
        return Counter(map(str, Call.objects.values_list("id", flat=True)))
