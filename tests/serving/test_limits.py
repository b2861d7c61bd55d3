"""Holds that a tenant's people set limits, see how they stand and are told in time, and that nobody else does."""

import os
from collections import Counter
from datetime import datetime
from decimal import Decimal

import pytest
import redis

from ingestion.core.calls import Arm
from ingestion.models import Call
from serving import limits
from serving.core.limits import BILLIONTHS, MOST, period_of
from serving.counters import PREFIX, counter_name
from serving.limits import UnableToLimit, remove_limit, set_limit, standing, watch_limits
from serving.models import Limit
from serving.publish import make_snapshot
from tenants.models import ApiKey, Event
from tenants.scope import acting_for
from tests.conftest import NOW
from tests.ingestion.makers import log_calls
from tests.serving.makers import make_rollout


@pytest.fixture(autouse=True)
def valkey():
    with redis.Redis.from_url(os.environ["VALKEY_URL"], decode_responses=True) as found:
        yield found
        for name in found.scan_iter(f"{PREFIX}:*"):
            found.delete(name)


@pytest.fixture
def now() -> datetime:
    """Far ahead: the counters of a window that is over are gone by Valkey's own clock."""
    return NOW.replace(year=2096)


def put(company, now, **changes) -> Limit:
    asked = {"measure": "spend", "window": "month", "amount": Decimal(50)} | changes
    with acting_for(company.id):
        return set_limit(**asked, actor="test", now=now)


def events(company) -> list[tuple[str, dict]]:
    with acting_for(company.id):
        found = Event.objects.filter(kind__startswith="limit.").order_by("at", "id")
        return [(event.kind, event.data) for event in found]


def counter(company, limit, now) -> str:
    period = period_of(limit.window, now=now.timestamp())
    return counter_name(tenant_id=str(company.id), limit_id=str(limit.id), period=period.name)


def told_kinds(company, now) -> list[str]:
    """The kinds of the events of a look."""
    before = Counter(kind for kind, _ in events(company))
    written = watch_limits(company.id, now=now)
    kinds = Counter(kind for kind, _ in events(company)) - before
    assert kinds.total() == written
    return list(kinds)


def test_gateways_are_told_of_a_limit_in_whole_numbers_and_of_the_prices_that_money_is_counted_by(company, rival, now):
    workload = make_rollout(company.id, now, state="full", share=1.0).workload
    with acting_for(company.id):
        key = ApiKey.objects.get()
    mine = [
        put(company, now, amount=Decimal("0.1")),
        put(company, now, measure="tokens", window="minute", amount=Decimal(90_000), key=key),
        put(company, now, measure="requests", window="day", amount=Decimal(7), workload=workload),
    ]
    snapshot = make_snapshot(now)
    found = {limit.id: limit for limit in snapshot.tenants[str(company.id)].limits}
    assert set(found) == {str(limit.id) for limit in mine}
    money, tokens, requests = (found[str(limit.id)] for limit in mine)
    assert (money.measure, money.window, money.amount) == ("spend", "month", BILLIONTHS // 10)
    assert (tokens.amount, tokens.key_id, tokens.workload_id) == (90_000, str(key.id), "")
    assert (requests.amount, requests.key_id, requests.workload_id) == (7, "", str(workload.id))
    assert snapshot.tenants[str(rival.id)].limits == ()
    assert snapshot.rates["openai/gpt-4o"].output > snapshot.rates["openai/gpt-4o-mini"].output > 0


def test_a_limit_of_the_same_kind_takes_the_place_of_the_older_one_and_both_are_in_the_trail(company, now):
    first, second = put(company, now), put(company, now, amount=Decimal(60))
    other = put(company, now, window="day")
    with acting_for(company.id):
        assert set(Limit.objects.values_list("id", "amount")) == {(first.id, 60), (other.id, 50)}
        assert first.id == second.id
        assert remove_limit(other, actor="test", now=now) and not remove_limit(other, actor="test", now=now)
    assert Counter(kind for kind, _ in events(company)) == {"limit.set": 3, "limit.removed": 1}
    assert ("limit.set", {"amount": "60", "measure": "spend", "window": "month"}) in events(company)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amount": Decimal(0)}, "must be more than 0"),
        ({"measure": "tokens", "amount": Decimal("1.5")}, "whole numbers"),
        ({"amount": Decimal("0.0000000001")}, "nine decimals"),
        ({"amount": Decimal(MOST) / BILLIONTHS + 1}, "more than can be counted"),
    ],
)
def test_what_no_counter_could_hold_is_refused_with_a_word(company, now, changes, said):
    with pytest.raises(UnableToLimit, match=said):
        put(company, now, **changes)
    assert events(company) == []


def test_a_tenant_has_so_many_limits_and_no_more(company, now, monkeypatch):
    monkeypatch.setattr(limits, "MOST_LIMITS", 2)
    put(company, now)
    put(company, now, window="day")
    put(company, now, amount=Decimal(9))  # in place of another
    with pytest.raises(UnableToLimit, match="remove one first"):
        put(company, now, window="minute")


def test_a_revoked_key_has_no_limit_and_no_limit_is_of_two_things(company, now):
    workload = make_rollout(company.id, now, state="full", share=1.0).workload
    with pytest.raises(UnableToLimit, match="not both"):
        put(company, now, key=company.key, workload=workload)
    with acting_for(company.id):
        key = ApiKey.objects.get()
        key.revoke(now)
        key.refresh_from_db()
    with pytest.raises(UnableToLimit, match="revoked"):
        put(company, now, key=key)


def test_a_new_counter_begins_with_what_the_log_has_and_a_flushed_one_is_raised_to_it(company, rival, now, valkey):
    log_calls(company.id, 10, now=now)
    log_calls(rival.id, 3, now=now)
    with acting_for(company.id):
        Call.objects.update(teacher_cost=Decimal("0.25"), at=now)
    money, requests = put(company, now), put(company, now, measure="requests", window="day", amount=Decimal(100))
    for _ in range(2):
        watch_limits(company.id, now=now)
        assert valkey.hget(counter(company, money, now), "total") == str(10 * BILLIONTHS // 4)
        assert valkey.hget(counter(company, requests, now), "total") == "10"
        valkey.flushdb()
    valkey.hset(counter(company, requests, now), "total", "40")  # what gateways counted and the log has not yet
    watch_limits(company.id, now=now)
    assert valkey.hget(counter(company, requests, now), "total") == "40"
    with acting_for(company.id):
        assert standing(Limit.objects.get(id=requests.id), now)[0] == 40


def test_a_limit_of_a_key_counts_that_key_s_calls_of_this_window(company, now, valkey):
    log_calls(company.id, 4, now=now)
    with acting_for(company.id):
        ids = list(Call.objects.values_list("id", flat=True))
        Call.objects.update(at=now, key_id=company.key.id)
        Call.objects.filter(id=ids[0]).update(key_id=company.id)
        Call.objects.filter(id=ids[1]).update(at=now.replace(month=1))
    limit = put(company, now, measure="requests", amount=Decimal(100), key=company.key)
    watch_limits(company.id, now=now)
    assert valkey.hget(counter(company, limit, now), "total") == "2"


def test_what_was_charged_in_another_currency_is_a_request_and_no_dollar(company, now, valkey):
    log_calls(company.id, 3, now=now)
    with acting_for(company.id):
        Call.objects.update(teacher_cost=Decimal("0.25"), currency="EUR", at=now)
    money, requests = put(company, now), put(company, now, measure="requests", amount=Decimal(100))
    watch_limits(company.id, now=now)
    assert valkey.hget(counter(company, money, now), "total") == "0"
    assert valkey.hget(counter(company, requests, now), "total") == "3"


def test_people_are_told_once_as_a_limit_comes_near_and_once_as_a_call_did_not_fit(company, now, valkey):
    limit = put(company, now, measure="requests", window="day", amount=Decimal(100))
    assert told_kinds(company, now) == []
    valkey.hset(counter(company, limit, now), "total", "80")
    assert told_kinds(company, now) == ["limit.near"]
    valkey.hset(counter(company, limit, now), "total", "99")
    assert told_kinds(company, now) == []
    valkey.hset(counter(company, limit, now), "refused", "100")
    assert told_kinds(company, now) == ["limit.reached"]
    assert told_kinds(company, now) == []
    tomorrow = now.replace(day=now.day + 1)
    with acting_for(company.id):
        assert standing(Limit.objects.get(), tomorrow)[0] is None
    valkey.hset(counter(company, limit, tomorrow), "total", "85")
    assert told_kinds(company, tomorrow) == ["limit.near"]
    assert {told.get("period") for _, told in events(company)} == {None, "2096-03-02", "2096-03-03"}


def test_what_the_student_answers_is_in_the_requests_and_not_in_the_money(company, now, valkey):
    log_calls(company.id, 5, now=now)
    with acting_for(company.id):
        Call.objects.update(arm=Arm.STUDENT, teacher_cost=Decimal(0), at=now)
    money, requests = put(company, now), put(company, now, measure="requests", amount=Decimal(100))
    watch_limits(company.id, now=now)
    assert valkey.hget(counter(company, money, now), "total") == "0"
    assert valkey.hget(counter(company, requests, now), "total") == "5"
