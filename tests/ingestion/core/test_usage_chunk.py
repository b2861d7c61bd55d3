"""The chunk that only we asked for is not shown, and every other byte is, however the stream is cut."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.usage_chunk import UsageHider

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def event(**fields) -> bytes:
    return b"data: " + json.dumps({"object": "chat.completion.chunk", **fields}).encode() + b"\n\n"


SAID = event(choices=[{"index": 0, "delta": {"content": '"choices":[] \n\n'}}], usage=None)
FILTER = event(choices=[], prompt_filter_results=[{}])  # Azure's first
HIDDEN = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
STREAM = [FILTER, b": a comment\n\n", SAID, SAID, HIDDEN, DONE]


def shown(parts) -> bytes:
    hider = UsageHider()
    return b"".join([hider.feed(part) for part in parts]) + hider.flush()


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=8))
def test_all_but_the_usage_is_shown_wherever_the_stream_is_cut(cuts):
    whole, at = b"".join(STREAM), [0, *sorted(cuts), None]
    parts = [whole[start:end] for start, end in itertools.pairwise(at)]
    assert shown(parts) == whole.replace(HIDDEN, b"")


@given(st.lists(st.sampled_from([*STREAM, b"\n\n", b"\r\n\r\n", b"\r\r"]), max_size=12))
def test_of_any_events_those_that_tell_usage_are_hidden(events):
    whole = b"".join(events)
    assert shown([whole]) == whole.replace(HIDDEN, b"")


def test_what_holds_nothing_is_not_looked_at_piece_by_piece(monkeypatch):
    looks = []
    monkeypatch.setattr("ingestion.core.usage_chunk._tells_usage", lambda event: bool(looks.append(event)))
    dust = b"\n" * 200_000
    assert shown([dust + FILTER + dust]) == dust + FILTER + dust
    assert looks == [FILTER]


def test_each_event_is_shown_as_soon_as_it_is_whole():
    hider = UsageHider()
    assert [hider.feed(one) for one in STREAM] == [*STREAM[:4], b"", DONE]
    assert hider.feed(SAID[:-1]) == b"" and hider.feed(SAID[-1:]) == SAID


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\r"])
def test_other_line_ends_are_read_too(end):
    assert shown([one.replace(b"\n\n", end) for one in STREAM]) == b"".join(STREAM).replace(HIDDEN, b"").replace(
        b"\n\n", end
    )


@pytest.mark.parametrize(
    "odd",
    [
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"usage":{}\n\n',
        b'data: {"choices":[],"usage":7}\n\n',
        b'event: x\ndata: {"choices":[],"usage":{}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1},"x":{"choices":[]}}\n\n',
        b"\xff\xfe\n\n",
    ],
)
def test_what_is_not_that_chunk_is_shown(odd):
    assert shown([odd, DONE]) == odd + DONE


@pytest.mark.parametrize("before", [b"id: 7\n", b"event: chunk\nretry: 5\n", b": comment\n"])
def test_other_fields_of_the_event_hide_nothing_from_us(before):
    assert shown([SAID, before + HIDDEN, DONE]) == SAID + DONE


def test_an_event_that_never_ends_is_not_held_for_ever_and_costs_no_more_than_its_length():
    hider = UsageHider()
    assert sum(len(hider.feed(b"x" * 10)) for _ in range(100_000)) >= 900_000
    assert hider.feed(HIDDEN) == HIDDEN, "from there on it is shown as it comes"


def test_what_is_held_at_the_end_is_shown():
    assert shown([SAID, b"data: [DONE]\n"]) == SAID + b"data: [DONE]\n"
