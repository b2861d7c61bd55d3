"""Drives the stand-in teacher with the demo's traffic, as the demo drives the gateway."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from demo.traffic import Plan, plan_errands, send
from tests.demo.servers import CREDENTIAL, run_teacher


@pytest.fixture(scope="module")
def plan():
    with run_teacher() as url:
        yield Plan(base_url=url, key=CREDENTIAL, calls=120, concurrency=8, seed=1, odd_share=0.1, stream_share=0.4)


@pytest.mark.parametrize("sdk_share", [0.0, 1.0])
async def test_every_call_is_heard_and_agrees_with_the_expert(plan, sdk_share):
    outcomes = []
    tally = await send(replace(plan, sdk_share=sdk_share), on_call=outcomes.append)
    assert (tally.calls, tally.errors, tally.agreed) == (120, 0, 120)
    assert len(outcomes) == 120
    assert {outcome.workload for outcome in outcomes} == set(plan.workloads)
    assert any(outcome.stream for outcome in outcomes)
    assert tally.report(now=tally.started + 2)["per_second"] == 60.0


@pytest.mark.parametrize("sdk_share", [0.0, 1.0])
async def test_refusals_are_counted_by_kind(plan, sdk_share):
    tally = await send(replace(plan, calls=10, key="wrong", sdk_share=sdk_share))
    assert tally.errors == 10
    assert dict(tally.kinds) == {"status_401": 10}


@pytest.mark.parametrize("sdk_share", [0.0, 1.0])
async def test_a_dead_server_is_an_error_and_not_the_end(plan, sdk_share):
    tally = await send(replace(plan, calls=4, base_url="http://127.0.0.1:9", sdk_share=sdk_share))
    assert (tally.calls, tally.errors) == (4, 4)


async def test_a_stopped_run_makes_no_further_call(plan):
    stop = asyncio.Event()
    tally = await send(plan, on_call=lambda _: stop.set(), stop=stop)
    assert tally.calls <= plan.concurrency


async def test_the_rate_is_a_ceiling(plan):
    started = asyncio.get_running_loop().time()
    await send(replace(plan, calls=20, rate=100.0))
    assert asyncio.get_running_loop().time() - started >= 0.18


def test_a_plan_always_makes_the_same_calls_and_another_seed_makes_others(plan):
    calls = [(errand.workload.name, errand.sample.query) for errand in plan_errands(plan)]
    assert calls == [(errand.workload.name, errand.sample.query) for errand in plan_errands(plan)]
    others = {errand.sample.query for errand in plan_errands(replace(plan, seed=2))}
    assert not others & {query for _, query in calls}


def test_weights_say_how_often_a_workload_is_drawn_and_none_of_its_is_never(plan):
    weighted = replace(plan, calls=400, weights={"routing": 3.0, "clauses": 1.0})
    drawn = Counter(errand.workload.name for errand in plan_errands(weighted))
    assert set(drawn) == {"routing", "clauses"}
    assert drawn["routing"] > 2 * drawn["clauses"]
