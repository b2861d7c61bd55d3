"""Calls of one workload share a fingerprint, calls of two do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Message, Tool
from ingestion.core.fingerprint import fingerprint, strip_variables
from tests.ingestion.core.asks import an_ask


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Today is 2026-11-24.", "Today is 2025-01-02."),
        ("Today is 12 Jan 2026.", "Today is 3 Feb 2025."),
        ("Today is March 4, 2024.", "Today is May 11, 2026."),
        ("At 2026-11-24T08:00:00Z, order 17.", "At 2026-11-25T23:10:05Z, order 1,234.5."),
        ("Session 3f2504e0-4f89-11d3-9a0c-0305e82c3301 is on.", "Session 00000000-4f89-11d3-9a0c-0305e82c33aa is on."),
        ("The user is bob@acme.test now.", "The user is anna.b+x@other.test now."),
        ("Read https://a.test/x?y=1 first.", "Read http://b.test first."),
        ('The shop is "Blue Door" here.', 'The shop is "Tiny" here.'),
        ("The shop is 'Blue Door' here.", "The shop is 'Tiny' here."),
        ("The shop is “Blue Door” here.", "The shop is “Tiny” here."),
        ("Two  spaces\nhere.", "Two spaces here."),
    ],
)
def test_what_varies_in_a_system_prompt_does_not_count(one, other):
    assert fingerprint(an_ask(system=one)) == fingerprint(an_ask(system=other))


@pytest.mark.parametrize(
    "other",
    [
        an_ask(system="Translate into Norwegian."),
        an_ask(model="gpt-4o-mini"),
        an_ask(tools=[Tool("weather", "{}")]),
        an_ask(tools=[Tool("weather", '{"type":"object"}')]),
        an_ask(system=""),
    ],
)
def test_another_prompt_model_or_tool_is_another_workload(other):
    assert fingerprint(other) != fingerprint(an_ask())


def test_an_apostrophe_is_no_quotation():
    assert strip_variables("Don't guess. It's wrong.") == "Don't guess. It's wrong."


def test_the_users_text_does_not_count_beside_a_system_prompt():
    assert fingerprint(an_ask(user="Hi")) == fingerprint(an_ask(user="Sort this:\nBye"))


def test_without_a_system_prompt_the_opening_line_tells_workloads_apart():
    first, again, other = (
        fingerprint(an_ask(system="", user=text))
        for text in ("Sort this mail:\nHello", "Sort this mail:\nBye", "Translate this:\nHello")
    )
    assert first == again != other


def test_without_a_system_prompt_a_bare_query_does_not_count():
    assert fingerprint(an_ask(system="", user="my card is lost")) == fingerprint(an_ask(system="", user="hello there"))


def test_tools_count_in_any_order():
    tools = [Tool("a", "{}"), Tool("b", "{}")]
    assert fingerprint(an_ask(tools=tools)) == fingerprint(an_ask(tools=tools[::-1]))


@given(system=st.text(max_size=60), user=st.text(max_size=60))
def test_any_text_has_a_fingerprint_of_32_hex_characters(system, user):
    found = fingerprint(an_ask(Message("user", user), system=system))
    assert len(found) == 32 and int(found, 16) >= 0
