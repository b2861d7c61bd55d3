"""How OpenAI's responses are read and written: `dialects` is the door to this file.

Source: the `/v1/responses` reference; the official SDK's types read everything written here. What both of the vendor's
APIs can say reads the same here as in `openai_wire`, so that one workload may be asked by either.
"""

from collections.abc import Iterator
from typing import Final

import orjson

from ingestion.core import openai_wire
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

_UNIQUE: Final = ("model", "stream", "max_output_tokens", "input", "instructions", "store", "previous_response_id")
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXT_PARTS: Final = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_LOGPROBS: Final = "message.output_text.logprobs"
_STATE: Final = ("previous_response_id", "conversation", "prompt")  # what the provider keeps and the request only names
_INCOMPLETE: Final = {"max_output_tokens": Finish.LENGTH, "content_filter": Finish.REFUSAL}
# What an answer repeats of its request, and what the vendor says where the request did not.
_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
}


def parse_ask(raw: bytes) -> Ask:
    """Read a request's body. Raises UnableToParse."""
    body = load_object(raw, unique=_UNIQUE)
    return Ask(
        dialect=Dialect.RESPONSES,
        model=take_text(body, "model") or "",
        messages=(*_read_instructions(body), *sorted(_read_input(body), key=_system_first)),
        raw=raw,
        tools=tuple(_read_tool(item) for item in take_objects(body, "tools")),
        tool_choice=_read_tool_choice(body.get("tool_choice")),
        response_format=_read_format(take_object(take_object(body, "text"), "format")),
        stream=take_flag(body, "stream"),
        include_usage=True,  # this dialect always says
        max_tokens=take_count(body, "max_output_tokens"),
        logprobs=bool(body.get("top_logprobs")) or _LOGPROBS in take_texts(body, "include"),
        stateful=_is_tied(body) or body.get("store") is not False,  # kept unless told not to
        tied=_is_tied(body),
        subject=take_text(body, "safety_identifier") or take_text(body, "user"),
    )


def parse_answer(raw: bytes) -> Answer:
    """Read a whole answer's body. Raises UnableToParse."""
    body = load_object(raw)
    if body.get("object") != "response" or not isinstance(body.get("output"), list):
        raise UnableToParse("The body is not a response.", param="output")
    return read_response(body)


def read_response(body: Json) -> Answer:
    """The answer in a response object, whole or at its stream's end. Raises UnableToParse."""
    items = take_objects(body, "output")
    parts = [part for item in items if item.get("type") == "message" for part in take_objects(item, "content")]
    refusal = "".join(take_text(part, "refusal") or "" for part in parts if part.get("type") == "refusal")
    text = "".join(take_text(part, "text") or "" for part in parts if part.get("type") == "output_text")
    calls = tuple(_read_call(item) for item in items if item.get("type") == "function_call")
    return Answer(
        text=refusal or text,
        finish=Finish.REFUSAL if refusal else read_finish(body, called=bool(calls)),
        model=take_text(body, "model") or "",
        tool_calls=calls,
        usage=read_usage(body.get("usage")),
    )


def read_finish(body: Json, *, called: bool) -> Finish:
    """A response's status in our words."""
    if body.get("status") == "incomplete":
        reason = take_object(body, "incomplete_details").get("reason")
        return _INCOMPLETE.get(reason, Finish.OTHER) if isinstance(reason, str) else Finish.OTHER
    if body.get("status") != "completed":
        return Finish.OTHER
    return Finish.TOOL_CALLS if called else Finish.STOP


def read_usage(usage: object) -> Usage | None:
    """A usage block; None where there is none."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("input_tokens_details")
    return Usage(
        input_tokens=read_tokens(usage, "input_tokens"),
        output_tokens=read_tokens(usage, "output_tokens"),
        cached_input_tokens=read_tokens(details, "cached_tokens") if isinstance(details, dict) else 0,
    )


def read_either_usage(usage: object) -> Usage | None:
    """A usage block of any of the vendor's APIs: most count `prompt_tokens`, this one and images `input_tokens`."""
    later = isinstance(usage, dict) and "input_tokens" in usage and "prompt_tokens" not in usage
    return read_usage(usage) if later else openai_wire.read_usage(usage)


def render_answer(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """The body of a whole answer; `created` is seconds since the epoch. Raises UnableToParse for no such ask."""
    return orjson.dumps(_finished(ask, answer, call_id, created))


def render_stream(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """All events of a streamed answer, to its last. Raises UnableToParse like `render_answer`."""
    whole = _finished(ask, answer, call_id, created)
    begun = whole | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        events += _item_events(index, item)
    events.append({"type": f"response.{whole['status']}", "response": whole})
    numbered = (event | {"sequence_number": number} for number, event in enumerate(events))
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in numbered)


def _system_first(message: Message) -> bool:
    return message.role != "system"


def _is_tied(body: Json) -> bool:
    return take_flag(body, "background") or any(body.get(name) for name in _STATE)


def _read_instructions(body: Json) -> Iterator[Message]:
    given = body.get("instructions")
    if isinstance(given, str):
        if given:
            yield Message(role="system", text=given)
    else:
        yield from (_read_item(item) for item in take_objects(body, "instructions"))


def _read_input(body: Json) -> list[Message]:
    given = body.get("input")
    if isinstance(given, str):
        return [Message(role="user", text=given)]
    return [_read_item(item) for item in take_objects(body, "input")]


def _read_item(item: Json) -> Message:
    """One item; what is neither a message nor a tool's matter is the trace of a conversation under way."""
    kind = take_text(item, "type") or "message"
    if kind == "message":
        return _read_message(item)
    if kind == "function_call":
        return Message(role="assistant", text="", tool_calls=(_read_call(item),))
    if kind.endswith("_output"):
        output = item.get("output")
        return Message(role="tool", text=output if isinstance(output, str) else canonical_json(output))
    return Message(role="assistant", text="")


def _read_message(item: Json) -> Message:
    role = _ROLES.get(take_text(item, "role", required=True) or "")
    if role is None:
        raise UnableToParse("A message's `role` is not known.", param="input")
    content = item.get("content")
    if isinstance(content, str):
        return Message(role=role, text=content)
    texts = [_read_part(part) for part in take_objects(item, "content")]
    return Message(role=role, text="\n".join(text for text in texts if text is not None), has_media=None in texts)


def _read_part(part: Json) -> str | None:
    field = _TEXT_PARTS.get(take_text(part, "type", required=True) or "")
    return None if field is None else take_text(part, field) or ""


def _read_call(item: Json) -> ToolCall:
    return ToolCall(take_text(item, "name") or "", take_text(item, "arguments") or "")


def _read_tool(item: Json) -> Tool:
    kind = take_text(item, "type", required=True) or ""
    if kind == "function":
        return Tool(take_text(item, "name", required=True) or "", canonical_json(take_object(item, "parameters")))
    return Tool(kind, canonical_json(item))  # custom and built-in tools: the whole entry tells one from another


def _read_tool_choice(choice: object) -> str | None:
    if choice is None or isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise UnableToParse("`tool_choice` must be a string or an object.", param="tool_choice")
    return take_text(choice, "name") or take_text(choice, "type")  # "allowed_tools" too: some of the tools, not any


def _read_format(asked: Json) -> str | None:
    """As chat completions spell it, where a schema lies one level deeper."""
    if asked.get("type") != "json_schema":
        return None if asked.get("type") in (None, "text") else canonical_json(asked)
    schema = {name: value for name, value in asked.items() if name != "type"}
    return canonical_json({"type": "json_schema", "json_schema": schema})


def _finished(ask: Ask, answer: Answer, call_id: str, created: int) -> Json:
    """The whole response object."""
    given = load_object(ask.raw)
    cut = answer.finish is Finish.LENGTH
    echoed = {name: default if given.get(name) is None else given[name] for name, default in _ECHOED.items()}
    return {
        "id": f"resp_{call_id}",
        "object": "response",
        "created_at": created,
        "status": "incomplete" if cut else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": answer.model,
        "output": _items(answer, call_id, "incomplete" if cut else "completed"),
        "previous_response_id": None,
        "store": False,
        "usage": _write_usage(answer.usage or Usage(input_tokens=0, output_tokens=0)),
        **echoed,
    }


def _items(answer: Answer, call_id: str, status: str) -> list[Json]:
    """What the answer says as one message, if it says anything, and each tool call as an item of its own."""
    part: Json = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    if answer.finish is Finish.REFUSAL:
        part = {"type": "refusal", "refusal": answer.text}
    message = {"id": f"msg_{call_id}", "type": "message", "status": status, "role": "assistant", "content": [part]}
    calls = [
        {
            "id": f"fc_{call_id}_{index}",
            "type": "function_call",
            "status": status,
            "call_id": f"call_{call_id}_{index}",
            "name": call.name,
            "arguments": call.arguments,
        }
        for index, call in enumerate(answer.tool_calls)
    ]
    return [*([message] if answer.text or not calls else []), *calls]


def _item_events(index: int, item: Json) -> list[Json]:
    """One item's events, each of which says where it belongs."""
    called = item["type"] == "function_call"
    nothing: Json = {"arguments": ""} if called else {"content": []}
    empty = item | {"status": "in_progress"} | nothing
    place: Json = {"item_id": item["id"], "output_index": index}
    inner = _call_events(item) if called else _part_events(item["content"][0])
    return [
        {"type": "response.output_item.added", "output_index": index, "item": empty},
        *(event | place for event in inner),
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _call_events(item: Json) -> list[Json]:
    return [
        {"type": "response.function_call_arguments.delta", "delta": item["arguments"]},
        {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": item["name"]},
    ]


def _part_events(part: Json) -> list[Json]:
    field = "text" if part["type"] == "output_text" else "refusal"
    more: Json = {"logprobs": []} if field == "text" else {}
    name = f"response.{part['type']}"
    place: Json = {"content_index": 0}
    return [
        {"type": "response.content_part.added", "part": part | {field: ""}} | place,
        {"type": f"{name}.delta", "delta": part[field]} | more | place,
        {"type": f"{name}.done", field: part[field]} | more | place,
        {"type": "response.content_part.done", "part": part} | place,
    ]


def _write_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
