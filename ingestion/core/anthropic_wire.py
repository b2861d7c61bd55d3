"""How Anthropic's messages are read and written: `dialects` is the door to this file.

Source: the `/v1/messages` reference; the official SDK's types read everything written here.
"""

from collections.abc import Iterator
from typing import Final

import orjson

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, Tool, ToolCall, Usage
from ingestion.core.reading import (
    MOST_TOKENS,
    Json,
    UnableToParse,
    canonical_json,
    load_object,
    read_tokens,
    take_count,
    take_flag,
    take_object,
    take_objects,
    take_text,
    take_texts,
)

_UNIQUE: Final = ("model", "stream", "max_tokens", "messages")
_ROLES: Final = ("user", "assistant", "system")
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
_FINISHES: Final = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "tool_use": Finish.TOOL_CALLS,
    "refusal": Finish.REFUSAL,
}
_REASONS: Final = {Finish.LENGTH: "max_tokens", Finish.TOOL_CALLS: "tool_use", Finish.REFUSAL: "refusal"}


def parse_ask(raw: bytes) -> Ask:
    """Read a request's body. Raises UnableToParse."""
    body = load_object(raw, unique=_UNIQUE)
    messages = [message for item in take_objects(body, "messages") for message in _read_messages(item)]
    if not messages:
        raise UnableToParse("`messages` must not be empty.", param="messages")
    return Ask(
        dialect=Dialect.ANTHROPIC,
        model=take_text(body, "model", required=True) or "",
        messages=(*_read_system(body), *messages),
        raw=raw,
        tools=tuple(_read_tool(item) for item in take_objects(body, "tools")),
        tool_choice=_read_tool_choice(take_object(body, "tool_choice")),
        response_format=_read_format(body),
        stream=take_flag(body, "stream"),
        include_usage=True,  # this dialect always says
        max_tokens=take_count(body, "max_tokens"),
        stop=take_texts(body, "stop_sequences"),
        subject=take_text(take_object(body, "metadata"), "user_id"),
    )


def parse_answer(raw: bytes) -> Answer:
    """Read a whole answer's body. Raises UnableToParse."""
    body = load_object(raw)
    if body.get("type") != "message" or not isinstance(body.get("content"), list):
        raise UnableToParse("The body is not a message.", param="content")
    blocks = take_objects(body, "content")
    return Answer(
        text="".join(take_text(block, "text") or "" for block in blocks if block.get("type") == "text"),
        finish=read_finish(body.get("stop_reason")),
        model=take_text(body, "model") or "",
        tool_calls=_read_calls(blocks),
        usage=read_usage(body.get("usage")),
    )


def read_finish(reason: object) -> Finish:
    """A `stop_reason` in our words."""
    return _FINISHES.get(reason, Finish.OTHER) if isinstance(reason, str) else Finish.OTHER


def read_usage(usage: object) -> Usage | None:
    """A usage block; None where there is none. Here cached tokens come beside the input tokens, not within."""
    if not isinstance(usage, dict):
        return None
    cached = read_tokens(usage, "cache_read_input_tokens")
    written = read_tokens(usage, "cache_creation_input_tokens")
    return Usage(
        input_tokens=min(read_tokens(usage, "input_tokens") + cached + written, MOST_TOKENS),
        output_tokens=read_tokens(usage, "output_tokens"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
    )


def render_answer(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """The body of a whole answer. Raises UnableToParse where a tool call's arguments are not a JSON object."""
    blocks = _blocks(answer, call_id)
    return orjson.dumps(
        _envelope(answer, call_id)
        | {"content": blocks, "stop_reason": _write_finish(answer), "usage": _write_usage(answer.usage)}
    )


def render_stream(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """All events of a streamed answer, to `message_stop`. Raises UnableToParse like `render_answer`."""
    usage = _write_usage(answer.usage)
    start = _envelope(answer, call_id) | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 0}}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(_blocks(answer, call_id)):
        events += _block_events(index, block)
    end = {"stop_reason": _write_finish(answer), "stop_sequence": None}
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}})
    events.append({"type": "message_stop"})
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events)


def render_error(*, kind: str, message: str) -> bytes:
    """An error's body."""
    return orjson.dumps({"type": "error", "error": {"type": kind, "message": message}})


def _read_system(body: Json) -> tuple[Message, ...]:
    system = body.get("system")
    if system is None or system == "":
        return ()
    if not isinstance(system, str | list):
        raise UnableToParse("`system` must be a string or an array of text blocks.", param="system")
    text = system if isinstance(system, str) else "\n".join(_block_text(item) for item in take_objects(body, "system"))
    return (Message(role="system", text=text),)


def _read_messages(item: Json) -> Iterator[Message]:
    """One turn as our messages: each tool result becomes a message of role tool, before what else the turn says."""
    role = take_text(item, "role", required=True)
    if role not in _ROLES:
        raise UnableToParse("A message's `role` is not known.", param="messages")
    content = item.get("content")
    if isinstance(content, str):
        yield Message(role=role, text=content)
        return
    if not isinstance(content, list):
        raise UnableToParse("A message's `content` must be a string or an array of blocks.", param="messages")
    blocks = take_objects(item, "content")
    results = [block for block in blocks if block.get("type") == "tool_result"]
    yield from map(_read_result, results)
    rest = [block for block in blocks if block.get("type") != "tool_result"]
    if rest or not results:
        yield _read_blocks(role, rest)


def _read_blocks(role: str, blocks: list[Json]) -> Message:
    kinds = {take_text(block, "type", required=True) for block in blocks}
    texts = [_block_text(block) for block in blocks if block["type"] == "text"]
    media = not kinds <= {"text", "tool_use", "thinking", "redacted_thinking"}
    return Message(role=role, text="\n".join(texts), has_media=media, tool_calls=_read_calls(blocks))


def _read_result(block: Json) -> Message:
    content = block.get("content")
    if content is None or isinstance(content, str):
        return Message(role="tool", text=content or "")
    parts = take_objects(block, "content")
    texts = [_block_text(part) for part in parts if part.get("type") == "text"]
    return Message(role="tool", text="\n".join(texts), has_media=len(texts) < len(parts))


def _block_text(block: Json) -> str:
    return take_text(block, "text") or ""


def _read_calls(blocks: list[Json]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(take_text(block, "name") or "", canonical_json(take_object(block, "input")))
        for block in blocks
        if block.get("type") == "tool_use"
    )


def _read_tool(item: Json) -> Tool:
    name = take_text(item, "name", required=True) or ""
    # Built-in tools have no schema: the whole entry tells one from another.
    return Tool(name, canonical_json(take_object(item, "input_schema") if "input_schema" in item else item))


def _read_tool_choice(choice: Json) -> str | None:
    kind = take_text(choice, "type")
    if kind == "tool":
        return take_text(choice, "name")
    return None if kind is None else _CHOICES.get(kind, kind)


def _read_format(body: Json) -> str | None:
    asked = take_object(take_object(body, "output_config"), "format") or take_object(body, "output_format")
    return canonical_json(asked) if asked else None


def _envelope(answer: Answer, call_id: str) -> Json:
    return {
        "id": f"msg_{call_id}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "stop_sequence": None,
    }


def _blocks(answer: Answer, call_id: str) -> list[Json]:
    text = [{"type": "text", "text": answer.text}] if answer.text else []
    calls = [
        {"type": "tool_use", "id": f"toolu_{call_id}_{index}", "name": call.name, "input": load_object(_given(call))}
        for index, call in enumerate(answer.tool_calls)
    ]
    return [*text, *calls]


def _given(call: ToolCall) -> bytes:
    return (call.arguments or "{}").encode()


def _block_events(index: int, block: Json) -> list[Json]:
    if block["type"] == "text":
        empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        given = canonical_json(block["input"])
        empty, delta = block | {"input": {}}, {"type": "input_json_delta", "partial_json": given}
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        {"type": "content_block_delta", "index": index, "delta": delta},
        {"type": "content_block_stop", "index": index},
    ]


def _write_usage(usage: Usage | None) -> dict[str, int]:
    counted = usage or Usage(input_tokens=0, output_tokens=0)
    beside = counted.cached_input_tokens + counted.cache_write_tokens
    return {
        "input_tokens": max(0, counted.input_tokens - beside),
        "cache_creation_input_tokens": counted.cache_write_tokens,
        "cache_read_input_tokens": counted.cached_input_tokens,
        "output_tokens": counted.output_tokens,
    }


def _write_finish(answer: Answer) -> str:
    return "tool_use" if answer.tool_calls else _REASONS.get(answer.finish, "end_turn")
