"""How OpenAI's chat completions are read and written: `dialects` is the door to this file.

Source: the `/v1/chat/completions` reference; the official SDK's types read everything written here.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, Tool, ToolCall, Usage
from ingestion.core.reading import (
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

_UNIQUE: Final = ("model", "stream", "max_tokens", "max_completion_tokens", "messages", "n", "store")
_OPTIONS: Final = frozenset(
    {
        *("tools", "functions", "tool_choice", "response_format", "stream_options", "n", "store", "logprobs", "stop"),
        *("safety_identifier", "user"),
    }
)
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_PARTS: Final = {"text": "text", "refusal": "refusal"}  # a part's type, and the field its text is in
_FINISHES: Final = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.REFUSAL,
}
_REASONS: Final = {Finish.LENGTH: "length", Finish.TOOL_CALLS: "tool_calls"}


def parse_ask(raw: bytes, *, model: str = "") -> Ask:
    """Read a request's body; `model` is what its path names, if it does. Raises UnableToParse."""
    body = load_object(raw, unique=_UNIQUE)
    messages = [_read_message(item) for item in take_objects(body, "messages")]
    if not messages:
        raise UnableToParse("`messages` must not be empty.", param="messages")
    said = take_text(body, "model", required=not model)
    return Ask(
        dialect=Dialect.OPENAI,
        model=model or said or "",
        messages=tuple(sorted(messages, key=_system_first)),
        raw=raw,
        stream=take_flag(body, "stream"),
        max_tokens=take_count(body, "max_completion_tokens") or take_count(body, "max_tokens"),
        **({} if _OPTIONS.isdisjoint(body) else _read_options(body)),
    )


def _read_options(body: Json) -> Json:
    """What most requests do not say."""
    return {
        "tools": _read_tools(body),
        "tool_choice": _read_tool_choice(body.get("tool_choice")),
        "response_format": _read_format(take_object(body, "response_format")),
        "include_usage": _read_usage_option(body),
        "n": take_count(body, "n") or 1,
        "stateful": take_flag(body, "store"),
        "logprobs": take_flag(body, "logprobs"),
        "stop": take_texts(body, "stop"),
        "subject": take_text(body, "safety_identifier") or take_text(body, "user"),
    }


def _read_usage_option(body: Json) -> bool | None:
    return take_flag(take_object(body, "stream_options"), "include_usage") if "stream_options" in body else None


def parse_answer(raw: bytes) -> Answer:
    """Read a whole answer's body, by its first choice. Raises UnableToParse."""
    body = load_object(raw)
    choices = take_objects(body, "choices")
    if not choices:
        raise UnableToParse("`choices` must not be empty.", param="choices")
    message = take_object(choices[0], "message")
    if not message:
        raise UnableToParse("A choice must have a `message`.", param="choices")
    refusal = take_text(message, "refusal")
    finish = Finish.REFUSAL if refusal else read_finish(choices[0].get("finish_reason"))
    return Answer(
        text=refusal or take_text(message, "content") or "",
        finish=finish,
        model=take_text(body, "model") or "",
        tool_calls=_read_calls(message),
        usage=read_usage(body.get("usage")),
    )


def read_finish(reason: object) -> Finish:
    """A `finish_reason` in our words."""
    return _FINISHES.get(reason, Finish.OTHER) if isinstance(reason, str) else Finish.OTHER


def read_usage(usage: object) -> Usage | None:
    """A usage block; None where there is none."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    return Usage(
        input_tokens=read_tokens(usage, "prompt_tokens"),
        output_tokens=read_tokens(usage, "completion_tokens"),
        cached_input_tokens=read_tokens(details, "cached_tokens") if isinstance(details, dict) else 0,
    )


def render_answer(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """The body of a whole answer; `created` is seconds since the epoch."""
    refused = answer.finish is Finish.REFUSAL
    message: Json = {
        "role": "assistant",
        "content": None if refused or (answer.tool_calls and not answer.text) else answer.text,
        "refusal": answer.text if refused else None,
    }
    if answer.tool_calls:
        message["tool_calls"] = _write_calls(answer, call_id)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _write_finish(answer)}
    body = _envelope(answer, "chat.completion", call_id, created, [choice])
    if answer.usage is not None:
        body["usage"] = _write_usage(answer.usage)
    return orjson.dumps(body)


def render_stream(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """All events of a streamed answer, with the usage chunk where the ask wants it, and `[DONE]`."""
    chunks = []
    for delta, finish in _deltas(answer, call_id):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunks.append(_envelope(answer, "chat.completion.chunk", call_id, created, [choice]))
    if ask.include_usage:
        for chunk in chunks:
            chunk["usage"] = None
        usage = _write_usage(answer.usage or Usage(input_tokens=0, output_tokens=0))
        chunks.append(_envelope(answer, "chat.completion.chunk", call_id, created, []) | {"usage": usage})
    return b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks) + b"data: [DONE]\n\n"


def render_error(*, kind: str, message: str, param: str | None, code: str | None) -> bytes:
    """An error's body."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def _system_first(message: Message) -> bool:
    return message.role != "system"


def _read_message(item: Json) -> Message:
    role = _ROLES.get(take_text(item, "role", required=True) or "")
    if role is None:
        raise UnableToParse("A message's `role` is not known.", param="messages")
    text, has_media = _read_content(item.get("content"))
    calls = _read_calls(item)
    return Message(role=role, text=text, has_media=has_media or bool(item.get("audio")), tool_calls=calls)


def _read_content(content: object) -> tuple[str, bool]:
    """(text, whether anything but text is there)."""
    if isinstance(content, str):
        return content, False
    if content is None:
        return "", False
    if not isinstance(content, list):
        raise UnableToParse("A message's `content` must be a string or an array of parts.", param="messages")
    texts = [_read_part(part) for part in content]
    return "\n".join(text for text in texts if text is not None), None in texts


def _read_part(part: object) -> str | None:
    if not isinstance(part, dict):
        raise UnableToParse("A content part must be an object.", param="messages")
    field = _TEXT_PARTS.get(take_text(part, "type", required=True) or "")
    return None if field is None else take_text(part, field) or ""


def _read_calls(message: Json) -> tuple[ToolCall, ...]:
    if "tool_calls" not in message and "function_call" not in message:
        return ()
    calls = [_read_call(item) for item in take_objects(message, "tool_calls")]
    legacy = take_object(message, "function_call")
    return (*calls, _read_function(legacy)) if legacy else tuple(calls)


def _read_call(item: Json) -> ToolCall:
    custom = take_object(item, "custom")
    if custom:  # a custom tool takes free text: as JSON text it is a string
        return ToolCall(take_text(custom, "name") or "", canonical_json(take_text(custom, "input") or ""))
    return _read_function(take_object(item, "function"))


def _read_function(function: Json) -> ToolCall:
    return ToolCall(take_text(function, "name") or "", take_text(function, "arguments") or "")


def _read_tools(body: Json) -> tuple[Tool, ...]:
    tools = [_read_tool(item) for item in take_objects(body, "tools")]
    return (*tools, *(_read_offer(item) for item in take_objects(body, "functions")))


def _read_tool(item: Json) -> Tool:
    if "function" in item:
        return _read_offer(take_object(item, "function"))
    # Custom and built-in tools have no parameters: the whole entry tells one from another.
    return Tool(take_text(item, "type") or "", canonical_json(item))


def _read_offer(function: Json) -> Tool:
    return Tool(take_text(function, "name", required=True) or "", canonical_json(take_object(function, "parameters")))


def _read_tool_choice(choice: object) -> str | None:
    if choice is None or isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise UnableToParse("`tool_choice` must be a string or an object.", param="tool_choice")
    for name in ("function", "custom"):
        if name in choice:
            return take_text(take_object(choice, name), "name")
    return take_text(choice, "type")  # "allowed_tools": some of the tools, which is not any of them


def _read_format(asked: Json) -> str | None:
    return None if asked.get("type") in (None, "text") else canonical_json(asked)


def _envelope(answer: Answer, kind: str, call_id: str, created: int, choices: list[Json]) -> Json:
    return {
        "id": f"chatcmpl-{call_id}",
        "object": kind,
        "created": created,
        "model": answer.model,
        "choices": choices,
    }


def _write_calls(answer: Answer, call_id: str) -> list[Json]:
    return [
        {
            "id": f"call_{call_id}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(answer.tool_calls)
    ]


def _write_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
    }


def _write_finish(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls else _REASONS.get(answer.finish, "stop")


def _deltas(answer: Answer, call_id: str) -> Iterator[tuple[dict[str, Any], str | None]]:
    yield {"role": "assistant", "content": None if answer.tool_calls and not answer.text else "", "refusal": None}, None
    if answer.text:
        yield {"refusal" if answer.finish is Finish.REFUSAL else "content": answer.text}, None
    for index, call in enumerate(_write_calls(answer, call_id)):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, _write_finish(answer)
