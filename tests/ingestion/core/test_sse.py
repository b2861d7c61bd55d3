"""A stream that is passed on is also remembered, however the network cuts it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Answer, Ask, Dialect, Finish, ToolCall, Usage
from ingestion.core.dialects import render_stream
from ingestion.core.sse import MAX_CALLS, MAX_LINE_BYTES, MAX_STREAM_BYTES, StreamReader

ANSWERS = [
    Answer(text="card_lost", finish=Finish.STOP, model="m", usage=Usage(9, 2)),
    Answer(text="é“\r\n\n", finish=Finish.LENGTH, model="m", usage=Usage(9, 2, cached_input_tokens=4)),
    Answer(
        text="Let me see.",
        finish=Finish.TOOL_CALLS,
        model="m",
        tool_calls=(ToolCall("weather", '{"city":"Oslo"}'), ToolCall("time", "{}")),
        usage=Usage(9, 2),
    ),
]
REAL_ANTHROPIC = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","model":"claude","content":[],\
"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}

event: ping
data: {"type": "ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":": 1}"}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"""


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_streamed_is_what_was_answered(dialect, answer):
    reader = read(dialect, streamed(dialect, answer))
    assert reader.finished and not reader.broken
    assert reader.answer() == answer


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_vendors_stream_is_read_with_its_usage_added_up(line_end):
    reader = read(Dialect.ANTHROPIC, REAL_ANTHROPIC.replace(b"\n", line_end))
    assert reader.answer() == Answer(
        text="Hi",
        finish=Finish.TOOL_CALLS,
        model="claude",
        tool_calls=(ToolCall("f", '{"a": 1}'),),
        usage=Usage(input_tokens=15, output_tokens=15, cached_input_tokens=5),
    )
    assert reader.finished and reader.output_chars == len('Hi{"a": 1}')


@given(data=st.data(), dialect=st.sampled_from(Dialect), answer=st.sampled_from(ANSWERS))
def test_a_stream_cut_anywhere_gives_the_same_answer(data, dialect, answer):
    body = streamed(dialect, answer)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    assert state(feed_cut(dialect, body, cuts)) == state(read(dialect, body))


@given(
    dialect=st.sampled_from(Dialect),
    body=st.lists(
        st.sampled_from(
            [b"data: ", b"data:", b"\n", b"\r\n", b"\n\n", b"{}", b"[DONE]", b'{"choices":[{"delta":', b"}]}"]
        )
        | st.binary(max_size=6),
        max_size=20,
    ).map(b"".join),
    cut=st.integers(0, 40),
)
def test_no_bytes_break_the_reader_and_cutting_them_changes_nothing(dialect, body, cut):
    assert state(feed_cut(dialect, body, [cut])) == state(read(dialect, body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["index", "delta", "content", "tool_calls", "function", "name", "text", "type", "usage"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(
    dialect=st.sampled_from(Dialect),
    kind=st.sampled_from(
        [
            *(
                "message_start",
                "content_block_start",
                "content_block_delta",
                "message_delta",
                "x",
                "response.completed",
            ),
            *("response.output_item.added", "response.output_text.delta", "response.function_call_arguments.delta"),
        ]
    ),
    event=st.dictionaries(
        st.sampled_from(
            ["choices", "usage", "model", "message", "index", "content_block", "delta", "error", "response", "item"]
        ),
        json_values,
    ),
)
def test_no_event_breaks_the_reader(dialect, kind, event):
    body = b"data: %b\n\n" % json.dumps({"type": kind} | event).encode()
    assert isinstance(read(dialect, body).answer(), Answer)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_stream_that_stops_short_is_not_finished_and_has_no_usage(dialect):
    body = streamed(dialect, ANSWERS[0])
    reader = read(dialect, body[: body.index(b"card_lost") + 40])
    assert not reader.finished
    assert reader.answer().usage is None


def test_a_server_that_closes_right_after_its_last_line_has_finished():
    body = streamed(Dialect.OPENAI, ANSWERS[0]).rstrip(b"\n") + b"\n"
    assert read(Dialect.OPENAI, body).finished


def test_usage_is_none_where_the_caller_did_not_ask_for_it():
    body = render_stream(an_ask(Dialect.OPENAI, include_usage=False), ANSWERS[0], call_id="c", created=1)
    assert read(Dialect.OPENAI, body).answer().usage is None


def test_only_the_first_of_many_choices_is_the_answer_but_all_are_output():
    body = b'data: {"choices":[{"index":1,"delta":{"content":"other"}},{"index":0,"delta":{"content":"mine"}}]}\n\n'
    reader = read(Dialect.OPENAI, body)
    assert reader.answer().text == "mine" and reader.output_chars == 9


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (Dialect.OPENAI, b'data: {"error":{"message":"overloaded"}}\n\n'),
        (Dialect.ANTHROPIC, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'),
        (Dialect.OPENAI, b"data: <html>\n\n"),
    ],
)
def test_an_error_in_mid_stream_leaves_the_answer_incomplete(dialect, body):
    reader = read(dialect, body + streamed(dialect, ANSWERS[0]))
    assert reader.broken and not reader.finished
    assert reader.answer().text == ""


def test_a_line_that_never_ends_does_not_fill_the_memory():
    reader = StreamReader(Dialect.OPENAI)
    for _ in range(10):
        reader.feed(b"x" * (MAX_LINE_BYTES // 4))
    assert reader.broken
    reader.feed(b"\n" + streamed(Dialect.OPENAI, ANSWERS[0]))
    assert not reader.finished


def test_tool_calls_without_number_do_not_fill_the_memory():
    reader = StreamReader(Dialect.OPENAI)
    for index in range(10_000):
        event = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, "function": {"name": "f"}}]}}]}
        reader.feed(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert reader.broken and len(reader.answer().tool_calls) <= MAX_CALLS


@pytest.mark.parametrize("dialect", Dialect)
def test_a_stream_that_never_ends_does_not_fill_the_memory(dialect):
    reader, piece = StreamReader(dialect), streamed(dialect, ANSWERS[0]).split(b"\n\n")[1]
    event = piece + b"\n\n"
    for _ in range(MAX_STREAM_BYTES // (900 * len(piece)) + 1):
        reader.feed(event * 1000)
    assert reader.broken and reader._bytes < MAX_STREAM_BYTES + 2 * len(event)


def test_what_is_forgotten_is_not_held_and_the_end_is_seen_all_the_same():
    reader = StreamReader(Dialect.OPENAI)
    event = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    reader.feed(event)
    reader.forget()
    reader.feed(event * 100)
    assert reader.answer().text == "" and not reader.finished
    reader.feed(b"data: [DONE]\n\n")
    assert reader.finished and not reader.broken and reader.output_chars == 404


def test_nothing_is_gathered_of_a_stream_that_is_over():
    reader = StreamReader(Dialect.OPENAI)
    reader.give_up()
    reader.feed(b"x" * 100_000)
    assert len(reader._line) == 0


def test_of_what_a_stream_says_it_used_only_counts_are_held():
    dust = json.dumps({"type": "message_delta", "usage": {"k": [[]] * 1000, "output_tokens": 7, "input_tokens": "9"}})
    reader = StreamReader(Dialect.ANTHROPIC)
    reader.feed(b"data: " + dust.encode() + b"\n\n")
    assert reader.answer().usage == Usage(0, 7) and reader._counts == {"output_tokens": 7}
    reader.give_up()
    assert reader.announced is None


def test_the_older_completions_are_output_too():
    reader = StreamReader(Dialect.OPENAI)
    reader.feed(b'data: {"choices":[{"index":0,"text":"four"}]}\n\n')
    assert reader.output_chars == 4


def test_lines_without_a_word_come_to_an_end():
    reader = StreamReader(Dialect.OPENAI)
    for _ in range(MAX_STREAM_BYTES // 2**20 + 1):
        reader.feed(b"\n" * 2**20)
    reader.feed(b"data: {}\n")
    assert reader.broken


def read(dialect: Dialect, body: bytes) -> StreamReader:
    return feed_cut(dialect, body, [])


def feed_cut(dialect: Dialect, body: bytes, cuts: list[int]) -> StreamReader:
    reader = StreamReader(dialect)
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        reader.feed(body[start:end])
    return reader


def state(reader: StreamReader) -> tuple[Answer, bool, bool, int]:
    return reader.answer(), reader.finished, reader.broken, reader.output_chars


def streamed(dialect: Dialect, answer: Answer) -> bytes:
    return render_stream(an_ask(dialect, include_usage=True), answer, call_id="c", created=1)


def an_ask(dialect: Dialect, *, include_usage: bool) -> Ask:
    return Ask(dialect=dialect, model="m", messages=(), raw=b"{}", stream=True, include_usage=include_usage)
