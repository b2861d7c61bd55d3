"""Limits on real gateways over a real Valkey: what is left is never spent twice, and who is refused is told in kind."""

import asyncio
import os
import time
from collections import Counter
from contextlib import ExitStack
from decimal import Decimal
from itertools import count
from uuid import uuid4

import aiohttp
import anthropic
import openai
import pytest
import redis

from ingestion.core.calls import Dialect, Usage
from ingestion.core.rating import cost
from serving.core.limits import BILLIONTHS, LimitEntry, period_of
from serving.counters import PREFIX, Reading, Readings, SharedCounters, Step, Taken, UnableToCount, counter_name
from serving.gateway import accounts, app, limits
from serving.gateway.accounts import Account, Reach
from tests.fakes.encoder import decision
from tests.fakes.serve import free_port, wait_for
from tests.serving.core.test_limits import limit
from tests.serving.gateway.cast import (
    OWNER,
    PLAIN,
    RATES,
    TENANT,
    WORKLOAD,
    Stage,
    anthropic_ask,
    claude_at,
    openai_ask,
    post,
    read_spool,
    serve_gateway,
    student,
    talk_to,
)

VALKEY = os.environ["VALKEY_URL"]
CENT = BILLIONTHS // 100


@pytest.fixture
def valkey():
    with redis.Redis.from_url(VALKEY, decode_responses=True) as found:
        yield found
        for name in found.scan_iter(f"{PREFIX}:*"):
            found.delete(name)


@pytest.fixture
def limited(stage: Stage, valkey):
    """`limited(limit, ...)` gives the URL of a gateway that holds them, or as many URLs as are asked for."""
    with ExitStack() as stack:

        def serve(*limits: LimitEntry, gateways: int = 1, url: str = VALKEY) -> list[str]:
            stage.limits = limits
            stage.publish()
            served = [serve_gateway(stage, counters_url=url) for _ in range(gateways)]
            return [stack.enter_context(one).url for one in served]

        yield serve


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """No test is about how long a call waits, but for the one that says so: a busy machine is slow."""
    monkeypatch.setattr(accounts, "WAIT_SECONDS", 20)
    monkeypatch.setattr(app, "SHARED_SECONDS", 15)


def spend(amount: int, **changes) -> LimitEntry:
    return limit(id=str(uuid4()), measure="spend", window="month", amount=amount, **changes)


def requests(amount: int, **changes) -> LimitEntry:
    return limit(**({"id": str(uuid4()), "measure": "requests", "window": "day", "amount": amount} | changes))


async def ask_all(urls: list[str], times: int, *, key: str = PLAIN.plain, padding: int = 0, **more) -> Counter[int]:
    """So many calls at once, spread over the gateways."""
    headers = {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(number: int) -> int:
            url = f"{urls[number % len(urls)]}/v1/chat/completions"
            async with http.post(url, json=openai_ask(query=f"parcel {number} " + "x" * padding, **more)) as answer:
                await answer.read()
                return answer.status

        return Counter(await asyncio.gather(*map(ask, range(times))))


def spent(stage: Stage) -> Decimal:
    """What the provider charged, by the log."""
    usages = [
        Usage(one.input_tokens, one.output_tokens, one.cached_input_tokens) for one in read_spool(stage.spool_dir)
    ]
    return sum((cost(usage, RATES["openai/gpt-4o"]) for usage in usages), Decimal(0))


def used(found: LimitEntry, valkey: redis.Redis, tenant: str = TENANT) -> int:
    names = list(valkey.scan_iter(f"{PREFIX}:*{tenant}:{found.id}*"))
    return sum(int(valkey.hget(name, "total") or 0) for name in names)


@pytest.mark.parametrize("gateways", [1, 2])
def test_two_hundred_calls_at_once_do_not_overspend_the_ten_cents_that_are_left(stage, limited, valkey, gateways):
    budget = spend(10 * CENT)
    stage.teacher.tokens = (800, 100)  # 0.3 cents a call: thirty-three fit
    urls = limited(budget, gateways=gateways)
    statuses = asyncio.run(ask_all(urls, 200, padding=3000, max_tokens=100))
    assert set(statuses) == {200, 429} and statuses.total() == 200
    assert Decimal("0.05") < spent(stage) <= Decimal("0.11")
    wait_for(lambda: used(budget, valkey) == int(spent(stage) * BILLIONTHS))


def test_what_a_call_did_not_use_is_there_for_the_next(stage, limited, valkey):
    budget = spend(10 * CENT)
    [url] = limited(budget)
    for _ in range(5):  # each may take up to 5 cents, and takes a fraction of that
        assert asyncio.run(ask_all([url], 1, max_tokens=5000)) == {200: 1}
    ahead = 2 * (10 * CENT // 50)
    wait_for(lambda: 0 <= used(budget, valkey) - int(spent(stage) * BILLIONTHS) <= ahead)


def test_requests_are_counted_over_all_gateways_to_the_last_one(stage, limited):
    urls = limited(requests(50), gateways=2)
    assert asyncio.run(ask_all(urls, 120)) == {200: 50, 429: 70}
    assert len(read_spool(stage.spool_dir)) == 50


def test_a_warm_call_asks_nobody(limited, valkey):
    urls = limited(requests(1_000_000), limit(id=str(uuid4()), measure="tokens", amount=1_000_000_000), spend(10**15))
    asyncio.run(ask_all(urls, 10))
    before = valkey.info("commandstats")["cmdstat_eval"]["calls"]
    assert asyncio.run(ask_all(urls, 200)) == {200: 200}
    assert valkey.info("commandstats")["cmdstat_eval"]["calls"] == before


def test_a_key_s_limit_holds_for_that_key_alone(limited):
    urls = limited(requests(3, key_id="key-plain"))
    assert asyncio.run(ask_all(urls, 10)) == {200: 3, 429: 7}
    assert asyncio.run(ask_all(urls, 10, key=OWNER.plain)) == {200: 10}


def test_a_workload_s_limit_holds_for_its_calls_alone(stage, limited):
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI), student_share=0.0)
    urls = limited(requests(3, workload_id=WORKLOAD))
    assert asyncio.run(ask_all(urls, 5)) == {200: 3, 429: 2}
    other = {"model": "gpt-4o", "messages": [{"role": "user", "content": "something else altogether"}]}
    assert asyncio.run(post(urls[0] + "", json=other)).status == 200


def test_a_student_s_answer_spends_nothing_and_is_a_request(stage, limited, valkey):
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI))
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage")
    money, number = spend(10 * CENT), requests(100)
    urls = limited(money, number)
    assert asyncio.run(ask_all(urls, 4)) == {200: 4}
    assert {(record.arm, record.reason) for record in read_spool(stage.spool_dir)} == {("student", "accepted")}
    assert not stage.teacher.seen
    wait_for(lambda: used(number, valkey) >= 4)
    assert used(money, valkey) == 0  # nobody has even asked


def test_a_caller_who_hangs_up_is_settled_by_what_was_sent(stage, limited, valkey):
    budget = spend(10 * CENT)
    [url] = limited(budget)

    async def hang_up() -> None:
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {PLAIN.plain}"}) as http:
            answer = await http.post(
                f"{url}/v1/chat/completions", json=openai_ask("endless", stream=True, max_tokens=9000)
            )
            await answer.content.read(10)
            answer.close()

    asyncio.run(hang_up())
    stage.record()
    wait_for(lambda: 0 < used(budget, valkey) < 5 * CENT)  # nine cents were set aside


def test_what_passes_through_is_settled_by_what_it_used_and_needs_that_anything_is_left(stage, limited, valkey):
    tokens = limit(id=str(uuid4()), measure="tokens", amount=20)
    [url] = limited(tokens)
    ask = {"model": "text-embedding-3-small", "input": "x"}
    answers = [asyncio.run(post(url, path="/v1/embeddings", json=ask)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]  # 9 each: the third begins with 2 left


def test_where_the_money_is_used_up_the_student_goes_on_and_the_teacher_is_not_asked(stage, limited, valkey):
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI))
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage")
    urls = limited(spend(1))
    assert asyncio.run(ask_all(urls, 4)) == {200: 4}
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage", novelty=0.0)  # now it is unsure
    assert asyncio.run(ask_all(urls, 4)) == {429: 4}
    assert not stage.teacher.seen


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/%62atches", "/v1/fine_tuning/jobs"])
def test_what_is_charged_unseen_is_refused_to_whom_tokens_or_money_are_limited(stage, limited, path):
    [url] = limited(limit(id=str(uuid4()), measure="tokens", amount=10**9, key_id="key-plain"))
    assert asyncio.run(post(url, path=path, json={"a": 1})).status == 403
    assert not stage.teacher.seen
    assert asyncio.run(post(url, path=path, key=OWNER.plain, json={"a": 1})).status == 201


def test_a_call_that_one_limit_refuses_takes_nothing_of_another(limited, valkey):
    narrow, wide = requests(3, key_id="key-plain"), requests(1)
    [url] = limited(narrow, wide)
    ask = {"model": "text-embedding-3-small", "input": "x"}
    for path in ("/v1/embeddings", "/v1/chat/completions"):
        answers = [asyncio.run(post(url, path=path, json=ask | openai_ask())) for _ in range(6)]
        assert [answer.status for answer in answers].count(429) >= 5
    wait_for(lambda: used(narrow, valkey) == 1)


@pytest.mark.parametrize(
    ("ask", "kept"),
    [
        ({"stream": True, "n": 3, "model": "uncounted"}, 3),
        ({"model": "silent", "max_tokens": 700}, 700),
    ],
    ids=["a stream of three without usage", "no answer at all"],
)
def test_where_nobody_tells_the_use_what_was_sent_and_set_aside_counts(stage, limited, valkey, ask, kept):
    tokens = limit(id=str(uuid4()), measure="tokens", amount=10_000)
    stage.teacher.counts = False
    [url] = limited(tokens)
    body = openai_ask(query="x" * 4000) | ask
    asyncio.run(post(url, json=body))
    stage.record()
    wait_for(lambda: 1000 + kept <= used(tokens, valkey) <= 1000 + kept + 400)


async def test_counters_that_never_answer_hold_up_one_call_and_not_the_next(monkeypatch):
    mute = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1]
    reach = Reach(SharedCounters(f"redis://127.0.0.1:{port}/0", process="1", patience=0.2))
    period = period_of("day", now=4_000_000_000.0)
    alone: list[int] = []
    one = Account(requests(10), period, reach, name="a", blindly=lambda: alone.append(1))
    started = time.monotonic()
    assert [await one.take(1) for _ in range(12)] == [True] * 10 + [False] * 2
    assert time.monotonic() - started < 1.0 and len(alone) == 10
    mute.close()


class Slow:
    """Counters that answer, each after a while; they have `left`."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.steps = 0

    async def step(self, name: str, step: Step) -> Taken:
        self.steps += 1
        await asyncio.sleep(0.05)
        granted = step.need if step.need <= self.left else None
        self.left -= granted or 0
        return Taken(granted, step.amount - self.left)


async def test_whoever_waits_behind_others_for_slow_counters_is_not_counted_alone():
    counters = Slow(left=12)
    alone: list[int] = []
    period = period_of("day", now=4_000_000_000.0)
    one = Account(requests(40), period, counters, name="a", blindly=lambda: alone.append(1))
    found = await asyncio.gather(*(one.take(1) for _ in range(40)))
    assert (found.count(True), alone) == (12, [])
    assert counters.steps < 20  # nobody asks again for what was just refused


def test_openai_callers_are_refused_as_openai_does(limited):
    [url] = limited(requests(1))
    with talk_to(url) as client:
        client.chat.completions.create(**openai_ask())
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**openai_ask())
    told = refused.value.response.headers
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert told["x-ratelimit-reset-requests"] == f"{told['retry-after']}s"
    assert 0 < int(told["retry-after"]) <= 86_400 and told["x-should-retry"] == "false"
    assert "1 requests a day on this tenant" in str(refused.value)


def test_anthropic_callers_are_refused_as_anthropic_does(limited):
    [url] = limited(limit(id=str(uuid4()), measure="tokens", window="minute", amount=10, key_id="key-plain"))
    with claude_at(url) as client, pytest.raises(anthropic.RateLimitError) as refused:
        client.messages.create(**anthropic_ask())
    told = refused.value.response.headers
    assert told["anthropic-ratelimit-tokens-limit"] == "10"
    assert told["anthropic-ratelimit-tokens-reset"].endswith(":00Z")
    assert 0 < int(told["retry-after"]) <= 60 and "x-should-retry" not in told
    assert refused.value.body["error"]["type"] == "rate_limit_error"


def test_a_limit_that_is_raised_or_removed_is_so_for_the_next_call(stage, limited):
    first = requests(2)
    [url] = limited(first)
    assert asyncio.run(ask_all([url], 3)) == {200: 2, 429: 1}
    stage.limits = (requests(4, id=first.id),)
    stage.publish()
    wait_for(lambda: asyncio.run(ask_all([url], 1)) == {200: 1}, every=0.05)
    stage.limits = ()
    stage.publish()
    wait_for(lambda: asyncio.run(ask_all([url], 20)) == {200: 20}, every=0.05)


def test_a_rival_s_counter_is_another_one(limited, valkey):
    mine = requests(10)
    today = period_of(mine.window, now=time.time()).name
    theirs = counter_name(tenant_id="another", limit_id=mine.id, period=today)
    valkey.hset(theirs, "total", "10")
    urls = limited(mine)
    assert asyncio.run(ask_all(urls, 10)) == {200: 10}
    assert valkey.hgetall(theirs) == {"total": "10"}


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:{port}/0"], ids=["unset", "nobody there"])
def test_without_the_counters_a_process_holds_the_limit_by_itself(limited, url):
    urls = limited(requests(10), url=url.format(port=free_port()))
    assert asyncio.run(ask_all(urls, 30)) == {200: 10, 429: 20}


class Counters:
    """The real counters, which can be taken away and given back, and whose replies can be lost."""

    def __init__(self, process: str) -> None:
        self.real = SharedCounters(VALKEY, process=process, patience=5)
        self.gone = SharedCounters(f"redis://127.0.0.1:{free_port()}/0", process=process, patience=5)
        self.away = False
        self.deaf = False

    async def step(self, name, step):
        taken = await (self.gone if self.away else self.real).step(name, step)
        if self.deaf:
            raise UnableToCount("TimeoutError", away=True)
        return taken


def account(found: LimitEntry, counters: Counters) -> Account:
    period = period_of(found.window, now=4_000_000_000.0)
    name = counter_name(tenant_id=TENANT, limit_id=found.id, period=period.name)
    return Account(found, period, Reach(counters, clock=count(0, 10).__next__), name=name)


def accounts_of(found: LimitEntry, processes: int) -> tuple[list[Account], list[Counters]]:
    counters = [Counters(str(number)) for number in range(processes)]
    return [account(found, one) for one in counters], counters


async def take_all(accounts: list[Account], times: int) -> int:
    """How many of so many takes of one, in turn, were granted."""
    return sum([await accounts[number % len(accounts)].take(1) for number in range(times)])


async def test_while_the_counters_are_away_each_process_spends_at_most_what_was_left(valkey):
    found = requests(1000)
    two, counters = accounts_of(found, 2)
    assert await take_all(two, 600) == 600
    for one in counters:
        one.away = True
    spent = await take_all(two, 2000)
    assert 400 <= spent <= 2 * 400 + 4 * 20  # what was left, twice, and what was taken ahead
    for one in counters:
        one.away = False
    assert await take_all(two, 2) == 0
    assert used(found, valkey) == 600 + spent  # what was spent meanwhile is counted, once


async def test_a_step_whose_reply_was_lost_is_neither_doubled_nor_forgotten(valkey):
    found = requests(1000)
    [one], [counters] = accounts_of(found, 1)
    for number in range(300):
        counters.deaf = number % 3 == 0
        assert await one.take(1)
        await one.even_out()
    counters.deaf = False
    await one.hand_in()
    assert used(found, valkey) == 300


async def test_counters_that_were_flushed_are_filled_again_by_who_holds_and_by_the_log(valkey):
    found = requests(1000)
    (here, gone), _ = accounts_of(found, 2)
    assert await take_all([here, gone], 900) == 900  # and one of the two processes ends
    valkey.flushdb()
    name = counter_name(tenant_id=TENANT, limit_id=found.id, period=here.period.name)
    with Readings(VALKEY) as readings:
        assert not readings.read([name])[0].seeded
        assert readings.seed(name, 900, until=int(here.period.ends)) == 900
        await here.hand_in()  # what it held is in the log already
        assert readings.read([name])[0] == Reading(used=900, seeded=True, refused=0)
        assert await take_all([here], 200) == 100
        assert readings.read([name])[0] == Reading(used=1000, seeded=True, refused=1000)
    valkey.flushdb()
    await here.hand_in()
    assert used(found, valkey) == 550  # its own part, before anybody has looked at the log


async def test_what_was_taken_ahead_is_given_back_as_the_limit_comes_near_and_as_a_process_ends(valkey):
    found = requests(1000)
    accounts, _ = accounts_of(found, 4)
    assert await take_all(accounts, 100) == 100
    assert used(found, valkey) > 100
    for one in accounts:
        await one.hand_in()
    assert used(found, valkey) == 100
    assert await take_all(accounts, 1100) == 900
    assert used(found, valkey) == 1000


async def test_calls_at_once_share_what_is_spare_and_nobody_s_is_taken_twice(valkey):
    found = requests(1000)
    accounts, _ = accounts_of(found, 3)
    granted = await asyncio.gather(*[accounts[number % 3].take(1) for number in range(1500)])
    for one in accounts:
        await one.hand_in()
    assert sum(granted) == used(found, valkey) <= 1000


async def test_a_provider_that_tells_of_more_use_than_there_is_breaks_no_counter(valkey):
    found = requests(1000)
    [one], _ = accounts_of(found, 1)
    for _ in range(100):
        one.give_back(-(2**62))
        await one.even_out()
    assert not await one.take(1)
    assert used(found, valkey) >= 1000


@pytest.mark.parametrize("ends", [False, True], ids=["idle", "stopped"])
def test_what_was_taken_ahead_and_is_not_used_is_given_back(stage, valkey, monkeypatch, ends):
    monkeypatch.setattr(limits, "TEND_SECONDS", 0.1 if not ends else 3600)
    found = requests(1000)
    stage.limits = (found,)
    stage.publish()
    with serve_gateway(stage, counters_url=VALKEY) as gateway:
        assert asyncio.run(ask_all([gateway.url], 3)) == {200: 3}
        if not ends:
            wait_for(lambda: used(found, valkey) == 3)
            assert asyncio.run(ask_all([gateway.url], 3)) == {200: 3}
            wait_for(lambda: used(found, valkey) == 6)
            return
        assert used(found, valkey) > 3
    assert used(found, valkey) == 3


def test_a_flushed_counter_is_told_again_by_who_holds_of_it(stage, valkey, monkeypatch):
    monkeypatch.setattr(limits, "TEND_SECONDS", 0.1)
    found = requests(1000)
    stage.limits = (found,)
    stage.publish()
    with serve_gateway(stage, counters_url=VALKEY) as gateway:
        assert asyncio.run(ask_all([gateway.url], 5)) == {200: 5}
        wait_for(lambda: used(found, valkey) == 5)
        for name in valkey.scan_iter(f"{PREFIX}:*{TENANT}:{found.id}*"):
            valkey.delete(name)
        wait_for(lambda: used(found, valkey) == 5)
