"""What a caller sends is read right or refused, and what we write is what the vendors' own SDKs read."""

import json

import anthropic
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, Tool, ToolCall, Usage
from ingestion.core.dialects import (
    UnableToParse,
    parse_answer,
    parse_ask,
    parse_passing_answer,
    parse_passing_ask,
    render_answer,
    render_error,
    render_stream,
)
from ingestion.core.sse import StreamReader

OPENAI, RESPONSES, ANTHROPIC = Dialect.OPENAI, Dialect.RESPONSES, Dialect.ANTHROPIC
TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}
ANSWERS = [
    Answer(text="card_lost", finish=Finish.STOP, model="m-1", usage=Usage(input_tokens=9, output_tokens=2)),
    Answer(text='é\n"q" </x>', finish=Finish.LENGTH, model="m-1", usage=Usage(9, 2, cached_input_tokens=4)),
    Answer(
        text="",
        finish=Finish.TOOL_CALLS,
        model="m-1",
        tool_calls=(ToolCall("weather", '{"city":"Oslo"}'), ToolCall("time", "{}")),
        usage=Usage(input_tokens=9, output_tokens=2),
    ),
]


def test_an_openai_request_is_read_in_full():
    ask = ask_openai(
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "developer", "content": "Be brief."},
        ],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": TOOL}}],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=5,
        max_completion_tokens=7,
        n=2,
        logprobs=True,
        stop="END",
        user="u-1",
    )
    assert ask.messages == (Message("system", "Be brief."), Message("user", "a\nb"))
    assert ask.tools == (Tool("weather", '{"properties":{"city":{"type":"string"}},"type":"object"}'),)
    assert (ask.tool_choice, ask.max_tokens, ask.n, ask.logprobs) == ("weather", 7, 2, True)
    assert (ask.stream, ask.include_usage, ask.stop, ask.subject) == (True, True, ("END",), "u-1")
    assert ask.response_format == '{"json_schema":{"name":"x","schema":{}},"type":"json_schema"}'


def test_an_anthropic_request_is_read_in_full():
    ask = ask_anthropic(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "weather", "input_schema": TOOL}],
        tool_choice={"type": "any"},
        stop_sequences=["END"],
        metadata={"user_id": "u-1"},
        stream=True,
    )
    assert ask.messages == (Message("system", "Be brief."), Message("user", "Hello"))
    assert ask.tools == (Tool("weather", '{"properties":{"city":{"type":"string"}},"type":"object"}'),)
    assert (ask.tool_choice, ask.max_tokens, ask.stop, ask.subject) == ("required", 16, ("END",), "u-1")
    assert ask.stream and ask.response_format is None


def test_anthropic_tool_traffic_becomes_turns_of_its_own():
    ask = ask_anthropic(
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"a": 1}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "text", "text": "And?"},
                ],
            },
        ]
    )
    assert [message.role for message in ask.messages] == ["user", "assistant", "tool", "user"]
    assert ask.messages[1].tool_calls == (ToolCall("weather", '{"a":1}'),)
    assert [message.text for message in ask.messages[2:]] == ["rain", "And?"]


@pytest.mark.parametrize(
    ("dialect", "part"),
    [
        (OPENAI, {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}),
        (OPENAI, {"type": "input_audio", "input_audio": {}}),
        (ANTHROPIC, {"type": "image", "source": {}}),
        (ANTHROPIC, {"type": "document", "source": {}}),
    ],
)
def test_media_are_noticed(dialect, part):
    ask = (ask_openai if dialect is OPENAI else ask_anthropic)(
        messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]
    )
    assert ask.messages[-1].has_media and ask.messages[-1].text == "see"


def test_older_and_rarer_forms_of_tools_are_read_too():
    custom = {"type": "custom", "custom": {"name": "sql"}}
    ask = ask_openai(
        tools=[custom],
        functions=[{"name": "weather", "parameters": TOOL}],
        tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [custom]}},
        messages=[
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "rain"},
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "sql", "input": "select 1"}}]},
            {"role": "tool", "tool_call_id": "t", "content": "1"},
        ],
    )
    assert [tool.name for tool in ask.tools] == ["custom", "weather"]
    assert ask.tool_choice == "allowed_tools", "some of the tools are not any of them"
    assert [message.role for message in ask.messages] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [message.tool_calls for message in ask.messages if message.tool_calls] == [
        (ToolCall("weather", "{}"),),
        (ToolCall("sql", '"select 1"'),),
    ]
    assert ask_openai(tool_choice={"type": "custom", "custom": {"name": "sql"}}).tool_choice == "sql"
    searching = ask_anthropic(tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}])
    assert searching.tools[0].name == "web_search" and "max_uses" in searching.tools[0].schema
    assert ask_anthropic(tool_choice={"type": "tool", "name": "weather"}).tool_choice == "weather"


def test_a_format_asked_of_anthropic_is_read():
    asked = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": asked}}, {"output_format": asked}):
        assert ask_anthropic(**fields).response_format == '{"schema":{"type":"object"},"type":"json_schema"}'


def test_plain_text_is_no_asked_for_format():
    assert ask_openai(response_format={"type": "text"}).response_format is None


def test_unknown_fields_are_ignored_and_the_bytes_kept():
    raw = b'{"model":"m","messages":[{"role":"user","content":"x","new":1}],"future":[{"deep":true}]}'
    assert parse_ask(OPENAI, raw).raw == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"cheap","messages":[{"role":"user","content":"x"}],"model":"dear"}',
        b'{"model":"cheap","messages":[{"role":"user","content":"x"}],"mod\\u0065l":"dear"}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream":false}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1,"max\\u005ftokens":999}',
        b'{"model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}',
    ],
)
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_a_key_given_twice_is_refused(dialect, raw):
    with pytest.raises(UnableToParse, match="twice"):
        parse_ask(dialect, raw)


def test_the_same_key_deeper_down_is_no_duplicate():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {}, "stream": {}}}}}]
    ask = ask_openai(tools=tools, messages=[{"role": "user", "content": 'say "model" and "model"'}])
    assert ask.model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nul",
        b"\xff",
        b'{"model":"m"}',
        b'{"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"","messages":[{"role":"user","content":"x"}]}',
        b'{"model":1,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":{}}',
        b'{"model":"m","messages":["x"]}',
        b'{"model":"m","messages":[{"role":"root","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":5}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":true}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":' + b"9" * 5000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":99999999999999999999}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":"x"}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC])
def test_what_is_no_request_is_refused(dialect, body):
    with pytest.raises(UnableToParse):
        parse_ask(dialect, body)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("depth", [300, 900])
def test_a_schema_too_deep_to_write_is_refused(dialect, depth):
    schema = b'{"a":' * depth + b"1" + b"}" * depth
    tool = b'{"name":"f","input_schema":%b}' if dialect is ANTHROPIC else b'{"function":{"name":"f","parameters":%b}}'
    raw = b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[%b]}' % (tool % schema)
    with pytest.raises(UnableToParse):
        parse_ask(dialect, raw)
    with pytest.raises(UnableToParse):
        parse_ask(dialect, raw[:-1] + b',"model":"n"}')


def test_a_refusal_never_quotes_the_body():
    raw = b'{"model":"m","messages":[{"role":"secret-word","content":"secret-word"}]}'
    with pytest.raises(UnableToParse) as refused:
        parse_ask(OPENAI, raw)
    assert "secret-word" not in f"{refused.value!r} {refused.value.message} {refused.value.param}"


@given(dialect=st.sampled_from(Dialect), raw=st.binary(max_size=200))
def test_no_bytes_break_the_reader(dialect, raw):
    for parse in (parse_ask, parse_answer):
        reads_or_refuses(parse, dialect, raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "name", "function", "input", "arguments", "index"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    dialect=st.sampled_from(Dialect),
    extra=st.dictionaries(
        st.sampled_from(
            [
                *("model", "messages", "system", "tools", "functions", "tool_choice", "response_format", "stream", "n"),
                *("stream_options", "max_tokens", "stop", "metadata", "user", "logprobs", "output_config"),
                *("choices", "usage", "content", "type", "stop_reason"),
                *("input", "instructions", "text", "include", "store", "prompt", "output", "status", "object"),
            ]
        ),
        json_values,
    ),
)
def test_no_json_breaks_the_reader(dialect, extra):
    body = {"model": "m", "type": "message", "messages": [{"role": "user", "content": "x"}]} | extra
    raw = json.dumps(body).encode()
    for parse in (parse_ask, parse_answer):
        reads_or_refuses(parse, dialect, raw)


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_written_is_read_back(dialect, answer):
    ask = an_empty_ask(dialect)
    assert parse_answer(dialect, render_answer(ask, answer, call_id="c1", created=1)) == answer


def test_an_openai_refusal_is_one():
    body = {"model": "m", "choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}
    answer = parse_answer(OPENAI, json.dumps(body).encode())
    assert (answer.finish, answer.text, answer.usage) == (Finish.REFUSAL, "No.", None)


def test_anthropic_input_tokens_include_what_the_cache_gave():
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 3,
    }
    body = {"type": "message", "model": "c", "content": [], "stop_reason": "end_turn", "usage": usage}
    usage = parse_answer(ANTHROPIC, json.dumps(body).encode()).usage
    assert usage == Usage(input_tokens=130, output_tokens=3, cached_input_tokens=100, cache_write_tokens=20)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_an_error_body_is_no_answer(dialect):
    raw = render_error(dialect, status=429, kind="rate_limit_error", message="Slow down.")
    with pytest.raises(UnableToParse):
        parse_answer(dialect, raw)


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_openai_sdk_reads_a_whole_answer(vendor, answer):
    body = render_answer(an_empty_ask(OPENAI), answer, call_id="c1", created=1)
    read = vendor.openai(200, body).chat.completions.create(model="m", messages=[])
    assert (read.choices[0].message.content or "") == answer.text
    assert read.usage.prompt_tokens == answer.usage.input_tokens
    calls = [(call.function.name, call.function.arguments) for call in read.choices[0].message.tool_calls or []]
    assert calls == [(call.name, call.arguments) for call in answer.tool_calls]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("include_usage", [True, False])
def test_the_openai_sdk_reads_a_stream(vendor, answer, include_usage):
    ask = ask_openai(stream=True, stream_options={"include_usage": include_usage})
    body = render_stream(ask, answer, call_id="c1", created=1)
    client = vendor.openai(200, body, kind="text/event-stream")
    with client.chat.completions.stream(model="m", messages=[]) as stream:
        read = stream.get_final_completion() if answer.finish is not Finish.LENGTH else None
    chunks = list(
        vendor.openai(200, body, kind="text/event-stream").chat.completions.create(model="m", messages=[], stream=True)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.text
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [2] * include_usage
    if read is not None:
        calls = [(call.function.name, call.function.arguments) for call in read.choices[0].message.tool_calls or []]
        assert calls == [(call.name, call.arguments) for call in answer.tool_calls]


@pytest.mark.parametrize("answer", ANSWERS)
def test_the_anthropic_sdk_reads_both_forms(vendor, answer):
    ask = an_empty_ask(ANTHROPIC)
    whole = render_answer(ask, answer, call_id="c1", created=1)
    stream = render_stream(ask, answer, call_id="c1", created=1)
    asked = {"model": "m", "max_tokens": 5, "messages": []}
    read = vendor.anthropic(200, whole).messages.create(**asked)
    with vendor.anthropic(200, stream, kind="text/event-stream").messages.stream(**asked) as events:
        streamed = events.get_final_message()
    for message in (read, streamed):
        assert "".join(block.text for block in message.content if block.type == "text") == answer.text
        calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
        assert calls == [(call.name, json.loads(call.arguments)) for call in answer.tool_calls]
        assert (message.usage.output_tokens, message.stop_reason) == (2, read.stop_reason)
        assert message.usage.input_tokens + message.usage.cache_read_input_tokens == answer.usage.input_tokens


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (401, "authentication_error", "AuthenticationError"),
        (429, "rate_limit_error", "RateLimitError"),
    ],
)
def test_errors_are_the_vendors_own(vendor, status, kind, error):
    for sdk, dialect, client in ((openai, OPENAI, vendor.openai), (anthropic, ANTHROPIC, vendor.anthropic)):
        body = render_error(dialect, status=status, kind=kind, message="It went wrong.", param="model")
        with pytest.raises(getattr(sdk, error), match="It went wrong"):
            client(status, body).models.list()


def test_tool_arguments_that_are_no_object_cannot_be_an_anthropic_answer():
    answer = Answer(text="", finish=Finish.TOOL_CALLS, model="m", tool_calls=(ToolCall("f", "[1"),))
    with pytest.raises(UnableToParse):
        render_answer(an_empty_ask(ANTHROPIC), answer, call_id="c1", created=1)


def reads_or_refuses(parse, dialect, raw):
    try:
        parse(dialect, raw)
    except UnableToParse:
        pass


def ask_openai(**fields) -> Ask:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]} | fields
    return parse_ask(OPENAI, json.dumps(body).encode())


def ask_anthropic(**fields) -> Ask:
    body = {"model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": "Hello"}]} | fields
    return parse_ask(ANTHROPIC, json.dumps(body).encode())


def an_empty_ask(dialect: Dialect) -> Ask:
    if dialect is RESPONSES:
        return parse_ask(RESPONSES, b'{"model": "m", "input": "Hello"}')
    return (ask_openai if dialect is OPENAI else ask_anthropic)()


@pytest.mark.parametrize(
    ("raw", "subject", "model"),
    [
        (b'{"model": "m", "user": "u"}', "u", "m"),
        (b'{"model": "m", "user": "u", "metadata": "odd"}', "u", "m"),
        (b'{"user": "u", "metadata": {"user_id": 7}}', "u", ""),
        (b'{"user": 7}', "7", ""),
        (b'{"user": "u", "safety_identifier": "s"}', "s", ""),
        (b'{"metadata": {"user_id": "a"}}', "a", ""),
        (b'{"model": [1]}', None, ""),
    ],
)
def test_whose_a_passing_request_is_shows_whatever_else_it_says(raw, subject, model):
    read = parse_passing_ask(OPENAI, raw)
    assert (read.subject, read.model, read.raw) == (subject, model, raw)


@pytest.mark.parametrize("raw", [b'{"user": {"id": 1}}', b'{"user": true}', b'{"metadata": {"user_id": ["a"]}}'])
def test_what_says_whose_it_is_in_a_way_that_no_erasure_could_find_is_not_kept(raw):
    assert (parse_passing_ask(OPENAI, raw).raw, parse_passing_ask(OPENAI, raw).subject) == (b"", None)


def test_what_passes_and_is_no_json_says_nothing_and_is_not_kept():
    for raw in (b"", b"[1]", b"--boundary", b'{"user": '):
        assert parse_passing_ask(OPENAI, raw) == parse_passing_ask(OPENAI, b"")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 900, "completion_tokens": 2, "input_tokens": 0, "output_tokens": 0}, (900, 2)),
        ({"prompt_tokens": 9, "total_tokens": 9}, (9, 0)),
        ({"input_tokens": 5, "output_tokens": 3}, (5, 3)),
    ],
)
def test_what_passes_is_counted_in_either_of_the_vendor_s_spellings(usage, tokens):
    read = parse_passing_answer(OPENAI, json.dumps({"usage": usage}).encode()).usage
    reader = StreamReader(OPENAI)
    reader.feed(b"data: " + json.dumps({"type": "image_generation.completed", "usage": usage}).encode() + b"\n\n")
    assert (read.input_tokens, read.output_tokens) == tokens
    assert (reader.answer().usage.input_tokens, reader.answer().usage.output_tokens) == tokens


def test_a_chat_whose_answer_the_provider_is_to_keep_is_noticed():
    assert ask_openai(store=True).stateful and not ask_openai(store=False).stateful and not ask_openai().stateful
