"""What a call takes from a limit, and when its window ends."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Dialect, Usage
from ingestion.core.dialects import parse_ask
from ingestion.core.rating import Rates
from serving.core.limits import (
    BILLIONTHS,
    MEDIA,
    MOST_ANSWERS,
    MOST_OUTPUT,
    TIED,
    LimitEntry,
    Window,
    demand,
    find_rates,
    limits_on,
    most_input,
    most_output,
    period_of,
    shown,
)

times = st.floats(datetime(2020, 1, 1, tzinfo=UTC).timestamp(), datetime(2090, 1, 1, tzinfo=UTC).timestamp())


def rates(output: str = "10", **more) -> Rates:
    fixed = {"input": "2.5", "cached_input": "1.25", "cache_write": "2.5"} | more
    return Rates(output=Decimal(output), currency="USD", **{name: Decimal(value) for name, value in fixed.items()})


def limit(**changes) -> LimitEntry:
    return LimitEntry(**({"id": "one", "measure": "tokens", "window": "day", "amount": 100} | changes))


@given(now=times, window=st.sampled_from(Window))
def test_windows_follow_each_other_without_a_gap_and_under_names_of_their_own(now, window):
    this = period_of(window, now=now)
    following = period_of(window, now=this.ends)
    assert this.begins <= now < this.ends == following.begins
    assert this.name < following.name
    assert period_of(window, now=this.begins) == this


def test_a_month_ends_where_the_calendar_says():
    leap = period_of(Window.MONTH, now=datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp())
    assert (leap.name, leap.ends) == ("2028-02", datetime(2028, 3, 1, tzinfo=UTC).timestamp())
    last = period_of(Window.MONTH, now=datetime(2026, 12, 31, tzinfo=UTC).timestamp())
    assert last.ends == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_a_call_takes_one_request_all_its_tokens_and_what_the_provider_charges():
    usage = Usage(input_tokens=1000, output_tokens=200, cached_input_tokens=400)
    taken = demand(usage, rates())
    assert (taken.requests, taken.tokens, taken.spend) == (1, 1200, 4_000_000)  # 600 × 2.5 + 400 × 1.25 + 200 × 10
    assert Decimal(taken.spend) / BILLIONTHS == Decimal("0.004")


def test_money_is_rounded_against_the_caller_never_down():
    assert demand(Usage(input_tokens=1, output_tokens=0), rates(input="0.0001")).spend == 1
    assert demand(Usage(input_tokens=1, output_tokens=0), None).spend == 0


def test_the_input_is_reserved_by_its_bytes_and_a_picture_by_none_of_its_own():
    plain = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "' + "包裹".encode() * 200 + b'"}]}'
    assert most_input(parse_ask(Dialect.OPENAI, plain)) == len(plain) // 4 + 1
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    content = [{"type": "text", "text": "x" * 400}, picture]
    shown = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": content}]}).encode()
    assert most_input(parse_ask(Dialect.OPENAI, shown)) == 100 + MEDIA
    kept = b'{"model": "gpt-4o", "input": "and then?", "previous_response_id": "resp_1"}'
    assert most_input(parse_ask(Dialect.RESPONSES, kept)) == TIED + len(kept) // 4 + 1


@pytest.mark.parametrize(
    ("max_tokens", "usual", "answers", "expected"),
    [(None, 0, 1, 1000), (None, 40, 1, 40), (20, 40, 1, 20), (500, 40, 1, 40), (500, 0, 1, 500), (500, 0, 3, 1500)],
)
def test_the_answer_is_reserved_by_what_bounds_it_first(max_tokens, usual, answers, expected):
    assert most_output(max_tokens, usual=usual, answers=answers) == expected


def test_a_model_costs_what_its_published_name_does_and_an_unknown_one_what_the_dearest_does():
    listed = {"openai/gpt-4o": rates("10"), "openai/gpt-4o-mini": rates("0.6"), "anthropic/claude-x": rates("75")}
    assert find_rates(listed, [("openai", "gpt-4o")]).output == 10
    assert find_rates(listed, [("openai", "gpt-4o-mini-2024"), ("openai", "gpt-4o-mini")]).output == Decimal("0.6")
    assert find_rates(listed, [("openai", "nobody-knows-it")]).output == 10
    assert find_rates(listed, [("azure", "gpt-4o-mini"), ("openai", "gpt-4o-mini")]).output == Decimal("0.6")
    assert find_rates(listed, [("mistral", "anything")]) is None


@given(max_tokens=st.none() | st.integers(0, 2**31), usual=st.integers(0, 2**31), answers=st.integers(-1, 2**31))
def test_no_caller_sets_aside_more_than_a_model_could_write(max_tokens, usual, answers):
    assert 0 <= most_output(max_tokens, usual=usual, answers=answers) <= MOST_OUTPUT * MOST_ANSWERS


def test_a_limit_holds_for_its_own_key_and_workload_alone():
    everyone, of_key, of_task = limit(id="a"), limit(id="b", key_id="k"), limit(id="c", workload_id="w")
    found = lambda key, task: [one.id for one in limits_on([everyone, of_key, of_task], key_id=key, workload_id=task)]  # noqa: E731
    assert found("k", "w") == ["b", "c", "a"]  # the tenant's own last
    assert found("other", None) == ["a"]
    assert found("k", "other") == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": 1_000_000}, "1,000,000 tokens"),
        ({"measure": "spend", "amount": 50 * BILLIONTHS}, "50.00 USD"),
        ({"measure": "spend", "amount": BILLIONTHS // 8}, "0.125 USD"),
    ],
)
def test_amounts_are_shown_in_their_unit(changes, expected):
    assert shown(limit(**changes)) == expected
