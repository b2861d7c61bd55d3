"""Tokens that nobody counted are estimated by what the workload's other calls were told, and by length before that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, ToolCall, Usage
from serving.core import estimate
from serving.core.estimate import EACH, ENOUGH, FEWEST, MANY, Fit, Lengths, estimate_usage


def ask(text: str, *, media: bool = False) -> Ask:
    return Ask(dialect=Dialect.OPENAI, model="m", messages=(Message("user", text, has_media=media),), raw=b"")


def answer(text: str) -> Answer:
    return Answer(text=text, finish=Finish.STOP, model="m")


def teach(lengths: Lengths, *, tenant: str = "t", fingerprint: str = "f", calls: int = FEWEST) -> None:
    """A provider that adds seven tokens to each call and takes five characters for one."""
    for number in range(calls):
        read, written = 100 + number % 50 * 10, 10 + number % 7 * 5
        usage = Usage(input_tokens=7 + read // 5, output_tokens=2 + written // 5)
        lengths.learn(tenant, fingerprint, ask("x" * read), answer("y" * written), usage)


def test_a_workload_s_calls_teach_what_its_others_take():
    lengths = Lengths()
    teach(lengths)
    found = lengths.estimate("t", "f", ask("x" * 1000), answer("y" * 100))
    assert abs(found.input_tokens - 207) <= 1 and abs(found.output_tokens - 22) <= 1


@pytest.mark.parametrize(("tenant", "fingerprint"), [("rival", "f"), ("t", "g"), ("t", "")])
def test_no_rival_s_and_no_other_workload_s_calls_teach_it(tenant, fingerprint):
    lengths = Lengths()
    teach(lengths)
    question, reply = ask("x" * 1000), answer("y" * 100)
    assert lengths.estimate(tenant, fingerprint, question, reply) == estimate_usage(question, reply) == Usage(250, 25)


def test_few_calls_teach_nothing_and_media_none():
    lengths = Lengths()
    teach(lengths, calls=FEWEST - 1)
    for _ in range(FEWEST):
        lengths.learn("t", "g", ask("x", media=True), answer("y"), Usage(1000, 1))
    assert lengths.estimate("t", "f", ask("x" * 1000), None) == Usage(250, 0)
    assert lengths.estimate("t", "g", ask("x" * 1000), None) == Usage(250, 0)


def test_of_many_calls_some_still_teach():
    lengths = Lengths()
    teach(lengths, calls=MANY)
    for _ in range(EACH * ENOUGH):
        lengths.learn("t", "f", ask("x" * 1000), answer("y"), Usage(900, 1))
    assert lengths.estimate("t", "f", ask("x" * 1000), None).input_tokens > 700


def test_what_was_learnt_is_bounded_and_what_changed_is_learnt_anew(monkeypatch):
    monkeypatch.setattr(estimate, "MOST_WORKLOADS", 2)
    lengths = Lengths()
    for fingerprint in ("first", "second", "third"):
        teach(lengths, fingerprint=fingerprint)
    assert lengths.estimate("t", "first", ask("x" * 1000), None) == Usage(250, 0)
    assert lengths.estimate("t", "third", ask("x" * 1000), None) != Usage(250, 0)
    line = Fit()
    for _ in range(ENOUGH):
        line.learn(100, 20)
    for _ in range(5 * ENOUGH):
        line.learn(100, 50)
    assert 49 <= line.guess(100) <= 50


@given(
    seen=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**31 - 1)), max_size=60), chars=st.integers(0, 10**7)
)
def test_whatever_providers_say_a_guess_is_a_number_that_could_be(seen, chars):
    line = Fit()
    for read, tokens in seen:
        line.learn(read, tokens)
    assert 0 <= line.guess(chars) <= 2 * chars + 64


def test_tool_calls_count_by_name_and_arguments():
    called = Answer(text="", finish=Finish.TOOL_CALLS, model="m", tool_calls=(ToolCall("name", "x" * 36),))
    assert estimate_usage(ask(""), called) == Usage(1, 10)
