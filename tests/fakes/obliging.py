"""A provider that answers in the form it is asked for: it calls the tool on offer, writes JSON where a response format
says so, and plain words otherwise; in every dialect, whole or in pieces of a few characters.

Source of the shapes: the vendors' API references for chat completions, responses, messages.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fakes.asgi import read_body, send_json

WORDS = "track_shipment"
VALUE = {"anomaly": "missing", "line": 7}
PIECE = 5


@dataclass
class Obliging:
    """The ASGI app. `asked` are path and body of each request."""

    asked: list[tuple[str, bytes]] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        body = await read_body(receive)
        self.asked.append((scope["path"], body))
        ask = json.loads(body)
        whole, events = DIALECTS[scope["path"]]
        text = json.dumps(VALUE) if offered(ask) or wants_json(ask) else WORDS
        if not ask.get("stream"):
            await send_json(send, 200, json.dumps(whole(ask, text)).encode())
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for event in events(ask, text):
            named = f"event: {event['type']}\n" if "type" in event else ""
            part = f"{named}data: {json.dumps(event)}\n\n".encode()
            await send({"type": "http.response.body", "body": part, "more_body": True})
        last = b"data: [DONE]\n\n" if scope["path"].endswith("completions") else b""
        await send({"type": "http.response.body", "body": last})


def offered(ask: dict) -> str | None:
    """The name of the tool on offer."""
    tools = ask.get("tools") or [{}]
    return tools[0].get("function", tools[0]).get("name")


def wants_json(ask: dict) -> bool:
    asked = ask.get("response_format"), *(ask.get(name, {}).get("format") for name in ("text", "output_config"))
    return any(asked)


def pieces(text: str) -> Iterator[str]:
    return (text[start : start + PIECE] for start in range(0, len(text), PIECE))


def completion(ask: dict, text: str) -> dict:
    tool = offered(ask)
    called = [{"id": "call_1", "type": "function", "function": {"name": tool, "arguments": text}}]
    message = {"role": "assistant", "content": None if tool else text, **({"tool_calls": called} if tool else {})}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if tool else "stop"}
    usage = {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25}
    return envelope("chat.completion", [choice]) | {"usage": usage}


def completion_events(ask: dict, text: str) -> Iterator[dict]:
    tool = offered(ask)
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": tool, "arguments": ""}}
    start = {"content": None, "tool_calls": [first]} if tool else {"content": ""}
    called = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces(text)]
    deltas = called if tool else [{"content": piece} for piece in pieces(text)]
    for delta in [{"role": "assistant", **start}, *deltas]:
        yield envelope("chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": None}])
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if tool else "stop"}
    yield envelope("chat.completion.chunk", [last])


def envelope(kind: str, choices: list[dict]) -> dict:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "gpt-4o-2024-08-06", "choices": choices}


def message(ask: dict, text: str) -> dict:
    tool = offered(ask)
    called = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": json.loads(text) if tool else None}
    block = called if tool else {"type": "text", "text": text}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [block],
        "stop_reason": "tool_use" if tool else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "output_tokens": 4},
    }


def message_events(ask: dict, text: str) -> Iterator[dict]:
    tool = offered(ask)
    whole = message(ask, text)
    (block,) = whole["content"]
    empty = block | ({"input": {}} if tool else {"text": ""})
    yield {"type": "message_start", "message": whole | {"content": [], "stop_reason": None}}
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield {"type": "ping"}
    for piece in pieces(text):
        written = {"type": "input_json_delta", "partial_json": piece} if tool else {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": written}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 4}}
    yield {"type": "message_stop"}


def response(ask: dict, text: str) -> dict:
    tool = offered(ask)
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    said = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    called = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": tool}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-4o-2024-08-06",
        "output": [called | {"arguments": text} if tool else said],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": ask.get("tools") or [],
        "text": ask.get("text") or {"format": {"type": "text"}},
        "usage": {
            "input_tokens": 21,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 25,
        },
    }


def response_events(ask: dict, text: str) -> Iterator[dict]:
    tool = offered(ask)
    whole = response(ask, text)
    (item,) = whole["output"]
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | empty_item(tool)},
        *(event | {"item_id": item["id"], "output_index": 0} for event in item_events(text, tool, item)),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    yield from (event | {"sequence_number": number} for number, event in enumerate(events))


def empty_item(tool: str | None) -> dict:
    return {"status": "in_progress", **({"arguments": ""} if tool else {"content": []})}


def item_events(text: str, tool: str | None, item: dict) -> list[dict]:
    if tool:
        name = "response.function_call_arguments"
        deltas = [{"type": f"{name}.delta", "delta": piece} for piece in pieces(text)]
        return [*deltas, {"type": f"{name}.done", "arguments": text, "name": tool}]
    (part,) = item["content"]
    events = [
        {"type": "response.content_part.added", "part": part | {"text": ""}},
        *({"type": "response.output_text.delta", "delta": piece, "logprobs": []} for piece in pieces(text)),
        {"type": "response.output_text.done", "text": text, "logprobs": []},
        {"type": "response.content_part.done", "part": part},
    ]
    return [event | {"content_index": 0} for event in events]


DIALECTS = {
    "/v1/chat/completions": (completion, completion_events),
    "/v1/messages": (message, message_events),
    "/v1/responses": (response, response_events),
}
