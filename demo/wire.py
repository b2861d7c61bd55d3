"""Writes the expert's replies and errors as the two providers would put them on the wire, whole or in events."""

import json
from collections.abc import Iterator

from demo.expert import MODELS, Reply

_PIECE_CHARACTERS = 6
_ERROR_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
}


def write_reply(reply: Reply, *, dialect: str, call_id: str, created: int) -> bytes:
    """The whole JSON body of a reply; `created` in seconds since the epoch."""
    body = _openai_body(reply, call_id, created) if dialect == "openai" else _anthropic_body(reply, call_id)
    return json.dumps(body).encode()


def write_events(reply: Reply, *, dialect: str, call_id: str, created: int, include_usage: bool) -> Iterator[bytes]:
    """The server-sent events of a reply, in order, the last one terminal."""
    if dialect == "openai":
        return _openai_events(reply, call_id, created, include_usage)
    return _anthropic_events(reply, call_id)


def write_error(status: int, message: str, *, dialect: str) -> bytes:
    """An error's JSON body in the provider's shape."""
    kind = _ERROR_KINDS.get(status, "api_error")
    if dialect == "anthropic":
        return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    openai_kind = kind if status in (400, 401) else "invalid_request_error"
    code = {401: "invalid_api_key", 404: "model_not_found"}.get(status)
    return json.dumps({"error": {"message": message, "type": openai_kind, "param": None, "code": code}}).encode()


def write_models(*, dialect: str) -> bytes:
    """The list of models in the dialect's shape."""
    if dialect == "anthropic":
        names = [name for name in MODELS if name.startswith("claude")]
        data: list[dict[str, object]] = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in names
        ]
        return json.dumps({"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}).encode()
    data = [{"id": name, "object": "model", "created": 1735689600, "owned_by": "demo"} for name in MODELS]
    return json.dumps({"object": "list", "data": data}).encode()


def _openai_usage(reply: Reply) -> dict[str, int]:
    total = reply.input_tokens + reply.output_tokens
    return {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens, "total_tokens": total}


def _openai_finish(reply: Reply) -> str:
    return "length" if reply.truncated else "tool_calls" if reply.tool else "stop"


def _openai_body(reply: Reply, call_id: str, created: int) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": None if reply.tool else reply.text, "refusal": None}
    if reply.tool:
        function = {"name": reply.tool, "arguments": reply.text}
        message["tool_calls"] = [{"id": f"call_{call_id}", "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _openai_finish(reply)}
    head = {"id": f"chatcmpl-{call_id}", "object": "chat.completion", "created": created, "model": reply.model}
    return {**head, "choices": [choice], "usage": _openai_usage(reply)}


def _openai_events(reply: Reply, call_id: str, created: int, include_usage: bool) -> Iterator[bytes]:
    head = {"id": f"chatcmpl-{call_id}", "object": "chat.completion.chunk", "created": created, "model": reply.model}

    def write_chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
        chunk: dict[str, object] = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return _write_data({**chunk, "usage": None} if include_usage else chunk)

    if reply.tool:
        function = {"name": reply.tool, "arguments": ""}
        call = {"index": 0, "id": f"call_{call_id}", "type": "function", "function": function}
        yield write_chunk({"role": "assistant", "content": None, "tool_calls": [call]})
    else:
        yield write_chunk({"role": "assistant", "content": ""})
    for piece in _cut(reply.text):
        function = {"arguments": piece}
        yield write_chunk({"tool_calls": [{"index": 0, "function": function}]} if reply.tool else {"content": piece})
    yield write_chunk({}, _openai_finish(reply))
    if include_usage:
        yield _write_data({**head, "choices": [], "usage": _openai_usage(reply)})
    yield b"data: [DONE]\n\n"


def _anthropic_stop(reply: Reply) -> str:
    return "max_tokens" if reply.truncated else "tool_use" if reply.tool else "end_turn"


def _anthropic_usage(reply: Reply, output_tokens: int) -> dict[str, int]:
    cached = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": reply.input_tokens, **cached, "output_tokens": output_tokens}


def _anthropic_message(reply: Reply, call_id: str) -> dict[str, object]:
    return {"id": f"msg_{call_id}", "type": "message", "role": "assistant", "model": reply.model}


def _anthropic_body(reply: Reply, call_id: str) -> dict[str, object]:
    block: dict[str, object] = {"type": "text", "text": reply.text}
    if reply.tool:
        arguments = {} if reply.truncated else json.loads(reply.text)
        block = {"type": "tool_use", "id": f"toolu_{call_id}", "name": reply.tool, "input": arguments}
    end = {
        "stop_reason": _anthropic_stop(reply),
        "stop_sequence": None,
        "usage": _anthropic_usage(reply, reply.output_tokens),
    }
    return {**_anthropic_message(reply, call_id), "content": [block], **end}


def _anthropic_events(reply: Reply, call_id: str) -> Iterator[bytes]:
    start: dict[str, object] = {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _anthropic_usage(reply, 1),
    }
    yield _write_event("message_start", message={**_anthropic_message(reply, call_id), **start})
    block: dict[str, object] = {"type": "text", "text": ""}
    if reply.tool:
        block = {"type": "tool_use", "id": f"toolu_{call_id}", "name": reply.tool, "input": {}}
    yield _write_event("content_block_start", index=0, content_block=block)
    yield _write_event("ping")
    for piece in _cut(reply.text):
        kind, name = ("input_json_delta", "partial_json") if reply.tool else ("text_delta", "text")
        yield _write_event("content_block_delta", index=0, delta={"type": kind, name: piece})
    yield _write_event("content_block_stop", index=0)
    stop = {"stop_reason": _anthropic_stop(reply), "stop_sequence": None}
    yield _write_event("message_delta", delta=stop, usage={"output_tokens": reply.output_tokens})
    yield _write_event("message_stop")


def _write_event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\n".encode() + _write_data({"type": kind, **fields})


def _write_data(value: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _cut(text: str) -> list[str]:
    return [text[at : at + _PIECE_CHARACTERS] for at in range(0, len(text), _PIECE_CHARACTERS)]
