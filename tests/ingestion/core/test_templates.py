"""The student reads the query alone, and nothing at all where the surroundings are not those it learnt in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Message
from ingestion.core.templates import MIN_ASKS, Template, UnableToLearnTemplate, extract_query, learn_template
from tests.ingestion.core.asks import SYSTEM, an_ask

QUERIES = [f"{word} {index}" for index, word in enumerate(["my card", "a refund", "top up", "cash"] * 6)]
TEMPLATE = Template(system=SYSTEM, prefix="Message: ", suffix="\n\nLabel:")


def test_the_constant_part_is_learnt_and_the_query_is_what_remains():
    template = learn_template([an_ask(user=f"Message: {query}\n\nLabel:") for query in QUERIES])
    assert template == TEMPLATE
    assert extract_query(template, an_ask(user="Message: where is my card?\n\nLabel:")) == "where is my card?"


def test_a_shared_start_within_a_word_stays_with_the_query():
    asks = [an_ask(user=f"Sort: {start}ing") for start in ("train", "trail", "tram") for _ in range(MIN_ASKS)]
    template = learn_template(asks)
    assert (template.prefix, template.suffix) == ("Sort: ", "")


def test_queries_without_surroundings_are_taken_whole():
    template = learn_template([an_ask(user=query) for query in QUERIES])
    assert template == Template(system=SYSTEM)
    assert extract_query(template, an_ask(user=" hello ")) == "hello"


def test_one_text_repeated_teaches_no_surroundings():
    assert learn_template([an_ask(user="ping it")] * MIN_ASKS) == Template(system=SYSTEM)


def test_a_system_prompt_that_varies_is_matched_by_its_constant_part():
    asks = [an_ask(system=f"Today is 2026-01-{day:02}.", user=QUERIES[day]) for day in range(1, 23)]
    template = learn_template(asks)
    assert extract_query(template, an_ask(system="Today is 2027-05-05.", user="cash")) == "cash"
    assert extract_query(template, an_ask(system="Today was 2027-05-05.", user="cash")) is None


@pytest.mark.parametrize("count", [0, 1, MIN_ASKS - 1])
def test_too_few_asks_teach_nothing(count):
    with pytest.raises(UnableToLearnTemplate):
        learn_template([an_ask(user=query) for query in QUERIES[:count]])


def test_conversations_teach_nothing():
    asks = [an_ask(Message("user", query), Message("assistant", "ok"), Message("user", query)) for query in QUERIES]
    with pytest.raises(UnableToLearnTemplate):
        learn_template(asks)


@pytest.mark.parametrize(
    "ask",
    [
        an_ask(user="Message: cash\n\nLabel: "),
        an_ask(user="message: cash\n\nLabel:"),
        an_ask(user="Message: \n\nLabel:"),
        an_ask(user="Message: \n\n\n\nLabel:"),
        an_ask(user="Message: Label:"),
        an_ask(user="Message: cash\n\nLabel:", system="Another."),
        an_ask(user="Message: cash\n\nLabel:", system=""),
        an_ask(Message("user", "Message: cash\n\nLabel:", has_media=True)),
        an_ask(Message("user", "Message: a\n\nLabel:"), Message("user", "Message: cash\n\nLabel:")),
        an_ask(Message("user", "Hi"), Message("assistant", "?"), Message("user", "Message: cash\n\nLabel:")),
        an_ask(Message("tool", "42"), Message("user", "Message: cash\n\nLabel:")),
        an_ask(Message("assistant", "Message: cash\n\nLabel:")),
    ],
)
def test_an_ask_that_does_not_match_has_no_query(ask):
    assert extract_query(TEMPLATE, ask) is None


@given(queries=st.lists(st.text(min_size=1).filter(str.strip), min_size=MIN_ASKS, max_size=30, unique_by=str.strip))
def test_every_ask_of_the_sample_matches_the_template_learnt_from_it(queries):
    asks = [an_ask(user=f"Mail:\n{query}\nSort it.") for query in queries]
    template = learn_template(asks)
    found = [extract_query(template, ask) for ask in asks]
    empty = [query for query in found if query is None]
    assert len(empty) <= 1  # where one query is the start of all the others, nothing of it remains
    for query, ask in zip(found, asks, strict=True):
        assert query is None or query in ask.messages[-1].text
