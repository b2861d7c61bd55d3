"""The pairs that must pass to the byte: requests with every documented field, answers in every form HTTP has for them.

Source of the field and event names: the vendors' API references for chat completions, responses, messages.
"""

import gzip
import json
import zlib
from dataclasses import dataclass, field

from tests.serving.gateway.cast import anthropic_ask, openai_ask

Headers = tuple[tuple[bytes, bytes], ...]
JSON: Headers = ((b"content-type", b"application/json"),)
SSE: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
ANTHROPIC: Headers = ((b"anthropic-version", b"2023-06-01"),)


@dataclass(frozen=True)
class Pair:
    """A request and the provider's answer to it. `pieces`: bytes of each write, 0 for all at once. `framing` is how the
    provider says where its body ends: length, chunked, close.
    """

    name: str
    path: str
    body: bytes
    sent: Headers = ()
    status: int = 200
    headers: Headers = JSON
    answer: bytes = b'{"id": "x", "object": "thing"}'
    pieces: int = 0
    framing: str = "length"
    decoded: bytes | None = None  # what the log holds of the answer, where that is not `answer`
    kept: bool = True  # whether the log holds the bodies at all
    method: str = field(default="POST")


def dumped(value: object, **how) -> bytes:
    return json.dumps(value, **how).encode()


CHAT_FIELDS: dict[str, object] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": -0.5,
    "function_call": "none",
    "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 9,
    "max_tokens": 9,
    "metadata": {"a": "b"},
    "modalities": ["text"],
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 2,
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "reasoning_effort": "minimal",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {}}},
    "safety_identifier": "person-1",
    "seed": 42,
    "service_tier": "flex",
    "stop": ["\n", "END"],
    "store": True,
    "stream": False,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
    "temperature": 0.0,
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object"}}}],
    "top_logprobs": 3,
    "top_p": 1,
    "user": "person-1",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
    "a_field_of_tomorrow": {"nested": [1, None, {"deep": "ä"}]},
}
MESSAGE_FIELDS: dict[str, object] = {
    "container": "c-1",
    "context_management": {"edits": []},
    "inference_geo": "us",
    "max_tokens": 1,
    "mcp_servers": [{"type": "url", "name": "m", "url": "https://example.com"}],
    "metadata": {"user_id": "person-1"},
    "output_config": {"effort": "low"},
    "service_tier": "standard_only",
    "stop_sequences": ["x"],
    "stream": False,
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "temperature": 1.0,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}],
    "top_k": 5,
    "top_p": 0.5,
    "a_field_of_tomorrow": [[], {}, ""],
}
RESPONSE_FIELDS: dict[str, object] = {
    "background": False,
    "conversation": {"id": "conv_1"},
    "include": ["reasoning.encrypted_content"],
    "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
    "instructions": "be brief",
    "max_output_tokens": 20,
    "max_tool_calls": 1,
    "metadata": {"a": "b"},
    "parallel_tool_calls": True,
    "previous_response_id": "resp_1",
    "prompt": {"id": "pmpt_1", "variables": {"a": "b"}},
    "prompt_cache_key": "k",
    "reasoning": {"effort": "low", "summary": "auto"},
    "safety_identifier": "person-1",
    "service_tier": "auto",
    "store": False,
    "stream": False,
    "temperature": 0.2,
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "file_search", "vector_store_ids": ["v"]}],
    "top_logprobs": 2,
    "top_p": 0.9,
    "truncation": "auto",
    "user": "person-1",
    "a_field_of_tomorrow": 1,
}
MESSAGES_SENT: dict[str, list[object]] = {
    "developer": [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}],
    "sound": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}],
    "file": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}],
    "tool": [
        {"role": "user", "content": "u"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "r"},
    ],
    "name": [{"role": "user", "name": "anna", "content": "u"}],
    "refusal": [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": ""},
    ],
}
# The same request as no serializer of ours would write it.
SPELLINGS = {
    "numbers": b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"a":1E2,"b":1.0,"c":-0.0,"d":1e-400,'
    b'"e":123456789012345678901234567890,"f":0.1000}',
    "spaces": b' \t\r\n{ "messages" : [ {"content":"x" , "role":"user"} ] ,\n "model" : "gpt-4o" } \n',
    "escapes": rb'{"model":"gpt-4o","messages":[{"role":"user","content":"\u0041\/\ud83d\ude00\n\u0000"}]}',
    "unicode": '{"model":"gpt-4o","messages":[{"role":"user","content":"Ünïcödé 货物 🚚 \u2028"}]}'.encode(),
    "twice": b'{"model":"gpt-4o","odd":1,"odd":2,"messages":[{"role":"user","content":"x"}]}',
    "deep": b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}],"deep":' + b"[" * 900 + b"]" * 900 + b"}",
    "empty key": b'{"":"","model":"gpt-4o","messages":[{"role":"user","content":"x"}]}',
    "long": dumped(openai_ask(query="word " * 40_000)),
}
STATUSES = (200, 201, 202, 203, 300, 302, 307, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 415)
STATUSES += (416, 418, 421, 422, 423, 424, 425, 428, 429, 431, 451, 500, 501, 502, 503, 504, 507, 511, 520, 529, 599)
ERRORS = {
    "json": (JSON, b'{ "error" : {"message": "as it put it", "type": "x", "code": null},  "odd": [1,2] }'),
    "html": (((b"content-type", b"text/html"),), b"<html>\r\nBad gateway\x00</html>"),
    "nothing": ((), b""),
}
ANSWER_HEADERS: dict[str, Headers] = {
    "request id": ((b"x-request-id", b"req_1"), (b"openai-processing-ms", b"12"), (b"openai-organization", b"o")),
    "limits": ((b"x-ratelimit-limit-requests", b"60"), (b"x-ratelimit-reset-tokens", b"6m0s")),
    "anthropic": ((b"request-id", b"req_1"), (b"anthropic-ratelimit-tokens-reset", b"2026-01-01T00:00:00Z")),
    "twice": ((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")),
    "odd": ((b"x-empty", b""), (b"x-latin", b"caf\xe9"), (b"x-utf8", "ü".encode()), (b"x_under", b'a, b;c="d"')),
    "date": ((b"date", b"Thu, 01 Jan 2026 00:00:00 GMT"), (b"server", b"cloudflare"), (b"cf-ray", b"x")),
    "long": ((b"x-long", b"y" * 30_000),),
    "cache": ((b"etag", b'"x"'), (b"cache-control", b"no-store"), (b"vary", b"*"), (b"age", b"1")),
}
SENT_HEADERS: dict[str, Headers] = {
    "beta": ((b"openai-beta", b"assistants=v2"), (b"anthropic-beta", b"tools-2024")),
    "organization": ((b"openai-organization", b"org"), (b"openai-project", b"p")),
    "trace": ((b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"tracestate", b"a=b")),
    "agent": ((b"user-agent", b"OpenAI/Python 1.0"), (b"x-stainless-lang", b"python"), (b"accept", b"*/*")),
    "twice": ((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")),
    "odd": ((b"x-latin", b"caf\xe9"), (b"x-utf8", "ü".encode()), (b"x-empty", b"")),
    "kind": ((b"content-type", b"application/json; charset=UTF-8"),),
    "key of its own": ((b"idempotency-key", b"k-1"), (b"x-client-request-id", b"c-1")),
}


def chunk_of(choice: dict[str, object], **more: object) -> bytes:
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    return dumped({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}], **more})


CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
CHAT_EVENTS = {
    "role": chunk_of({"delta": {"role": "assistant", "content": "", "refusal": None}}),
    "content": chunk_of({"delta": {"content": "ü\u2028"}}),
    "refusal": chunk_of({"delta": {"refusal": "no"}}),
    "tool": chunk_of({"delta": {"tool_calls": [CALL]}}),
    "arguments": chunk_of({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}),
    "function": chunk_of({"delta": {"function_call": {"name": "f", "arguments": "{}"}}}),
    "logprobs": chunk_of({"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": -0.1}]}}),
    "second choice": chunk_of({"index": 1, "delta": {"content": "y"}}),
    "reasoning": chunk_of({"delta": {"reasoning_content": "hm"}}),
    "obfuscated": chunk_of({"delta": {"content": "x"}}, obfuscation="aB3"),
    "annotations": chunk_of({"delta": {"annotations": [{"type": "url_citation"}]}}),
    "finish": chunk_of({"finish_reason": "stop"}),
    "filter": chunk_of({"finish_reason": "content_filter"}),
    "usage": dumped(
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}
    ),
    "error": dumped({"error": {"message": "broke", "type": "server_error"}}),
    "azure": dumped({"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
}
RESPONSE_EVENTS = (
    "response.created",
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.output_text.annotation.added",
    "response.refusal.delta",
    "response.refusal.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_part.done",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.file_search_call.completed",
    "response.web_search_call.in_progress",
    "response.web_search_call.searching",
    "response.web_search_call.completed",
    "response.code_interpreter_call.in_progress",
    "response.code_interpreter_call.interpreting",
    "response.code_interpreter_call.completed",
    "response.code_interpreter_call_code.delta",
    "response.code_interpreter_call_code.done",
    "response.image_generation_call.in_progress",
    "response.image_generation_call.generating",
    "response.image_generation_call.partial_image",
    "response.image_generation_call.completed",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_list_tools.in_progress",
    "response.mcp_list_tools.completed",
    "response.mcp_list_tools.failed",
    "response.audio.delta",
    "response.audio.done",
    "response.audio.transcript.delta",
    "response.audio.transcript.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
)
MESSAGE_EVENTS: dict[str, dict[str, object]] = {
    "text": {"content_block": {"type": "text", "text": ""}, "delta": {"type": "text_delta", "text": "ü"}},
    "tool": {
        "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'},
    },
    "thinking": {
        "content_block": {"type": "thinking", "thinking": ""},
        "delta": {"type": "thinking_delta", "thinking": "hm"},
    },
    "signature": {
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        "delta": {"type": "signature_delta", "signature": "s"},
    },
    "redacted": {
        "content_block": {"type": "redacted_thinking", "data": "x"},
        "delta": {"type": "text_delta", "text": ""},
    },
    "citations": {
        "content_block": {"type": "text", "text": "", "citations": []},
        "delta": {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "x"}},
    },
    "server tool": {
        "content_block": {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        "delta": {"type": "input_json_delta", "partial_json": ""},
    },
    "search result": {
        "content_block": {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        "delta": {"type": "text_delta", "text": ""},
    },
    "tomorrow's": {"content_block": {"type": "hologram"}, "delta": {"type": "hologram_delta", "photons": 3}},
}
CUTS = {"whole": 0, "by the byte": 1, "in thirteens": 13}


def events_of(*datas: bytes, end: bytes = b"\n", named: bool = False) -> bytes:
    """An event stream of these data lines."""
    lines = []
    for data in datas:
        if named:
            lines.append(b"event: " + json.loads(data)["type"].encode())
        lines += [b"data: " + data, b""]
    return end.join([*lines, b""])


def message_stream(shown: dict[str, object]) -> bytes:
    usage = {"input_tokens": 5, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "m", "model": "claude-x", "content": [], "usage": usage}}
    block = {"type": "content_block_start", "index": 0, "content_block": shown["content_block"]}
    delta = {"type": "content_block_delta", "index": 0, "delta": shown["delta"]}
    stop = {"type": "content_block_stop", "index": 0}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
    events = [start, {"type": "ping"}, block, delta, stop, last, {"type": "message_stop"}]
    return events_of(*map(dumped, events), named=True)


def response_stream(kind: str) -> bytes:
    whole = {"id": "r", "model": "gpt-4o", "status": "completed", "output": [], "usage": None}
    first = {"type": "response.created", "sequence_number": 0, "response": whole}
    shown = {"type": kind, "sequence_number": 1, "output_index": 0, "delta": "x", "item": {"type": "message"}}
    if kind in ("response.completed", "response.incomplete", "response.failed"):
        return events_of(dumped(first), dumped({**shown, "response": whole}), named=True)
    last = {"type": "response.completed", "sequence_number": 2, "response": whole}
    return events_of(dumped(first), dumped(shown), dumped(last), named=True)


def field_pairs() -> list[Pair]:
    """Every field by itself, in every dialect."""
    chat = [Pair(f"chat {name}", CHAT, dumped(openai_ask(**{name: value}))) for name, value in CHAT_FIELDS.items()]
    chat += [
        Pair(f"chat {name}", CHAT, dumped({"model": "gpt-4o", "messages": messages}))
        for name, messages in MESSAGES_SENT.items()
    ]
    chat += [Pair(f"spelt: {name}", CHAT, body) for name, body in SPELLINGS.items()]
    response = [
        Pair(f"response {name}", RESPONSES, dumped({"model": "gpt-4o", "input": "x", name: value}))
        for name, value in RESPONSE_FIELDS.items()
    ]
    message = [
        Pair(f"message {name}", MESSAGES, dumped({**anthropic_ask(), name: value}), ANTHROPIC)
        for name, value in MESSAGE_FIELDS.items()
    ]
    return chat + response + message


def answer_pairs() -> list[Pair]:
    """Every status, error body, header, encoding and framing."""
    ask = dumped(openai_ask())
    found = [
        Pair(f"{status} {kind}", CHAT, ask, status=status, headers=headers, answer=answer)
        for status in STATUSES
        for kind, (headers, answer) in ERRORS.items()
    ]
    found += [
        Pair(f"message {status}", MESSAGES, dumped(anthropic_ask()), ANTHROPIC, status=status, answer=ERRORS["json"][1])
        for status in STATUSES
    ]
    found += [Pair(f"answered {name}", CHAT, ask, headers=JSON + more) for name, more in ANSWER_HEADERS.items()]
    found += [Pair(f"sent {name}", CHAT, ask, sent=more) for name, more in SENT_HEADERS.items()]
    plain = dumped({"id": "x", "choices": [{"message": {"content": "word " * 99}, "finish_reason": "stop"}]})
    for encoding, packed, decoded in (
        (b"gzip", gzip.compress(plain), plain),
        (b"deflate", zlib.compress(plain), plain),
        (b"br", b"\x1b\x0a\x00\x00brotli", None),
        (b"identity", plain, plain),
    ):
        headers = (*JSON, (b"content-encoding", encoding))
        found += [
            Pair(
                f"{encoding.decode()} {framing} {cut}",
                CHAT,
                ask,
                headers=headers,
                answer=packed,
                pieces=pieces,
                framing=framing,
                decoded=decoded,
                kept=decoded is not None,
            )
            for framing in ("length", "chunked", "close")
            for cut, pieces in CUTS.items()
        ]
    packed = gzip.compress(b" " * 5_000_000)
    found.append(Pair("a bomb", CHAT, ask, headers=(*JSON, (b"content-encoding", b"gzip")), answer=packed, kept=False))
    return found


def stream_pairs() -> list[Pair]:
    """Every type of event, however its bytes are cut and its lines end."""
    ask = dumped(openai_ask(stream=True))
    found = [
        Pair(
            f"event {name} {cut} {end!r}",
            CHAT,
            ask,
            headers=SSE,
            pieces=pieces,
            framing="chunked",
            answer=b": ping" + end * 2 + events_of(event, b"[DONE]", end=end),
        )
        for name, event in CHAT_EVENTS.items()
        for cut, pieces in CUTS.items()
        for end in (b"\n", b"\r\n")
    ]
    found += [
        Pair(
            f"event {kind} {cut}",
            RESPONSES,
            dumped({"model": "gpt-4o", "input": "x", "stream": True}),
            headers=SSE,
            answer=response_stream(kind),
            pieces=pieces,
            framing="chunked",
        )
        for kind in RESPONSE_EVENTS
        for cut, pieces in (("whole", 0), ("in thirteens", 13))
    ]
    found += [
        Pair(
            f"event {name} {cut}",
            MESSAGES,
            dumped(anthropic_ask(stream=True)),
            ANTHROPIC,
            headers=SSE,
            answer=message_stream(shown),
            pieces=pieces,
            framing=framing,
        )
        for name, shown in MESSAGE_EVENTS.items()
        for (cut, pieces), framing in zip(CUTS.items(), ("chunked", "close", "chunked"), strict=True)
    ]
    return found


PAIRS = [*field_pairs(), *answer_pairs(), *stream_pairs()]
