"""Holds that OpenAI's responses are read right, written as its SDK reads them, and share workloads with its chat."""

import json

import pytest

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, Tool, ToolCall, Usage
from ingestion.core.dialects import UnableToParse, parse_answer, parse_ask, render_answer, render_stream
from ingestion.core.fingerprint import fingerprint
from ingestion.core.sse import StreamReader

TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}
SCHEMA = {"name": "x", "schema": {"type": "object"}, "strict": True}
ANSWERS = [
    Answer(text="card_lost", finish=Finish.STOP, model="m-1", usage=Usage(input_tokens=9, output_tokens=2)),
    Answer(text='é\n"q" </x>', finish=Finish.LENGTH, model="m-1", usage=Usage(9, 2, cached_input_tokens=4)),
    Answer(text="I will not.", finish=Finish.REFUSAL, model="m-1", usage=Usage(9, 2)),
    Answer(
        text="",
        finish=Finish.TOOL_CALLS,
        model="m-1",
        tool_calls=(ToolCall("weather", '{"city":"Oslo"}'), ToolCall("time", "{}")),
        usage=Usage(input_tokens=9, output_tokens=2),
    ),
]


def ask(**fields) -> Ask:
    return parse_ask(Dialect.RESPONSES, json.dumps({"model": "m", "input": "Hello"} | fields).encode())


def chat(**fields) -> Ask:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields
    return parse_ask(Dialect.OPENAI, json.dumps(body).encode())


def test_a_request_is_read_in_full():
    read = ask(
        instructions="Be brief.",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]}],
        tools=[{"type": "function", "name": "weather", "parameters": TOOL, "strict": True}],
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", **SCHEMA}},
        stream=True,
        max_output_tokens=7,
        store=False,
        safety_identifier="u-1",
    )
    assert read.messages == (Message("system", "Be brief."), Message("user", "a\nb"))
    assert read.tools == (Tool("weather", '{"properties":{"city":{"type":"string"}},"type":"object"}'),)
    assert (read.tool_choice, read.max_tokens, read.n, read.logprobs) == ("weather", 7, 1, False)
    assert (read.stream, read.include_usage, read.stateful, read.subject) == (True, True, False, "u-1")


def test_a_workload_may_be_asked_by_either_of_the_vendors_apis():
    tools = {"tools": [{"type": "function", "name": "weather", "parameters": TOOL}]}
    chat_tools = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]}
    formats = {"text": {"format": {"type": "json_schema", **SCHEMA}}}
    chat_formats = {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}
    mine = ask(instructions="Be brief.", **tools, **formats)
    theirs = chat(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        **chat_tools,
        **chat_formats,
    )
    assert mine.messages == theirs.messages and fingerprint(mine) == fingerprint(theirs)


def test_a_conversation_under_way_shows():
    read = ask(
        input=[
            {"role": "user", "content": "Weather?"},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"a":1}'},
            {"type": "function_call_output", "call_id": "c", "output": "rain"},
        ]
    )
    assert [message.role for message in read.messages] == ["user", "assistant", "assistant", "tool"]
    assert read.messages[2].tool_calls == (ToolCall("weather", '{"a":1}'),) and read.messages[3].text == "rain"


@pytest.mark.parametrize("kind", ["input_image", "input_file", "input_audio"])
def test_media_are_noticed(kind):
    read = ask(input=[{"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": kind}]}])
    assert read.messages[-1].has_media and read.messages[-1].text == "see"


@pytest.mark.parametrize(
    ("fields", "stateful"),
    [
        ({}, True),  # kept by the provider unless told not to
        ({"store": True}, True),
        ({"store": False}, False),
        ({"store": False, "background": True}, True),
        ({"store": False, "previous_response_id": "resp_1"}, True),
        ({"store": False, "conversation": "conv_1"}, True),
        ({"store": False, "prompt": {"id": "pmpt_1"}}, True),
    ],
)
def test_what_the_provider_keeps_or_has_kept_is_noticed(fields, stateful):
    assert ask(**fields).stateful is stateful


def test_only_what_is_not_all_in_the_body_is_tied():
    assert not ask().tied and not ask(store=False).tied
    for fields in ({"background": True}, {"previous_response_id": "r"}, {"conversation": "c"}, {"prompt": {"id": "p"}}):
        assert ask(**fields).tied


@pytest.mark.parametrize("fields", [{"top_logprobs": 2}, {"include": ["message.output_text.logprobs"]}])
def test_log_probabilities_asked_for_are_noticed(fields):
    assert ask(**fields).logprobs


@pytest.mark.parametrize(
    "fields",
    [
        {"input": 3},
        {"input": [3]},
        {"input": [{"role": "wizard", "content": "x"}]},
        {"instructions": 3},
        {"text": {"format": 3}},
        {"tools": [{"type": "function"}]},
        {"tool_choice": 3},
        {"max_output_tokens": -1},
        {"stream": "yes"},
    ],
)
def test_what_is_none_is_refused_and_never_quoted(fields):
    with pytest.raises(UnableToParse) as refused:
        ask(**fields)
    assert "wizard" not in refused.value.message


def test_a_key_that_decides_is_not_given_twice():
    with pytest.raises(UnableToParse, match="`store` is given twice"):
        parse_ask(Dialect.RESPONSES, b'{"model":"m","input":"x","store":false,"store":true}')


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_sdk_reads_a_whole_answer(vendor, answer):
    body = render_answer(ask(), answer, call_id="c1", created=1)
    hold_same(vendor.openai(200, body).responses.create(model="m", input="x"), answer)
    assert parse_answer(Dialect.RESPONSES, body) == answer


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_sdk_reads_a_stream(vendor, answer):
    asked = ask(
        stream=True, tools=[{"type": "function", "name": "weather", "parameters": TOOL}], metadata={"team": "seven"}
    )
    body = render_stream(asked, answer, call_id="c1", created=1)
    events = list(
        vendor.openai(200, body, kind="text/event-stream").responses.create(model="m", input="x", stream=True)
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
        "" if answer.finish is Finish.REFUSAL else answer.text
    )
    hold_same(events[-1].response, answer)
    assert events[-1].response.metadata == {"team": "seven"} and events[-1].response.tools[0].name == "weather"


@pytest.mark.parametrize("answer", [ANSWERS[0], ANSWERS[3]])
def test_the_sdks_own_assembling_of_a_stream_reads_it(vendor, answer):
    body = render_stream(ask(stream=True), answer, call_id="c1", created=1)
    with vendor.openai(200, body, kind="text/event-stream").responses.stream(model="m", input="x") as stream:
        hold_same(stream.get_final_response(), answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_passed_before_a_stream_was_cut_is_known(answer):
    """Without the last event, which repeats it all, what the deltas said stands."""
    body = render_stream(ask(stream=True), answer, call_id="c1", created=1)
    reader = StreamReader(Dialect.RESPONSES)
    reader.feed(body[: body.rindex(b"event: ")])
    read = reader.answer()
    assert (read.text, read.tool_calls, read.model) == (answer.text, answer.tool_calls, "m-1")
    assert not reader.finished and not reader.broken and read.usage is None
    assert reader.output_chars == len(answer.text) + sum(len(call.arguments) for call in answer.tool_calls)


@pytest.mark.parametrize("last", [b'{"type":"response.failed","response":{"output":[]}}', b'{"type":"error"}', b"{"])
def test_a_stream_that_ends_in_a_failure_is_no_answer(last):
    reader = StreamReader(Dialect.RESPONSES)
    reader.feed(b"event: x\ndata: " + last + b"\n\n")
    assert reader.broken and not reader.finished


def hold_same(read, answer: Answer) -> None:
    """What the SDK read says what the answer says."""
    refused = answer.finish is Finish.REFUSAL
    assert read.output_text == ("" if refused else answer.text)
    refusals = [part.refusal for item in read.output if item.type == "message" for part in item.content if refused]
    assert refusals == [answer.text] * refused
    calls = [(item.name, item.arguments) for item in read.output if item.type == "function_call"]
    assert calls == [(call.name, call.arguments) for call in answer.tool_calls]
    assert (read.status == "incomplete") is (answer.finish is Finish.LENGTH)
    assert (read.usage.input_tokens, read.usage.output_tokens) == (9, 2)
