"""A provider that speaks every dialect; the asked-for model says how it behaves.

`gpt-*`, `claude-*`: answers. `moved`: redirects. `delay-MS`: answers late. `rate-limited`, `overloaded`, `failing`,
`unknown-model`: the provider's own errors. `broken`: breaks off after three events, or inside a body. `endless`:
streams until the caller leaves; `flood` as fast as it can. `flood-in-one`: 3 MB in one answer. `silent`: never answers.
`uncounted`: no usage. `zipped`: gzip though asked not to. `long-header`: echoes 20 kB in a header. `never-done`: a
stream without its last event. `busy-SECONDS`: refuses every other call, to be asked again after that. Azure's paths are
answered too.
"""

import asyncio
import gzip
import json
import time
from dataclasses import dataclass, field
from functools import partial

from tests.fakes.asgi import left, read_body, send_json, sleep_or_leave

WORDS = ("track", "_", "ship", "ment")
TEXT = "".join(WORDS)
ERRORS = {"rate-limited": 429, "overloaded": 529, "failing": 500, "unknown-model": 404}
CONTENT = [bytes([number]) * 5000 for number in range(5)]
EMBEDDED = json.dumps(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
).encode()
ERROR_BODY = b'{ "error" : {"message": "as the provider put it", "type": "x"},  "odd": [1,2] }'


@dataclass(frozen=True)
class Seen:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Teacher:
    """The ASGI app. `seen` are the requests; `left` counts callers who hung up on it, and `gone_at` says for each body
    when by the monotonic clock; `counts`: tells its usage, in chat completions `tokens` (read, written) where that is
    set.
    """

    seen: list[Seen] = field(default_factory=list)
    left: int = 0
    gone_at: dict[bytes, float] = field(default_factory=dict)
    streaming: int = 0
    counts: bool = True
    tokens: tuple[int, int] | None = None
    kept: bytes = b""  # what it says of an answer that it has kept

    async def __call__(self, scope, receive, send) -> None:
        body = await read_body(receive)
        receive = partial(self._note_departure, receive, body)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        self.seen.append(Seen(path, headers, body))
        scope, deployment = _without_azure(scope)
        if scope["path"] == "/v1/models":
            await send_json(
                send, 200, b'{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1,"owned_by":"x"}]}'
            )
            return
        if scope["path"] not in WRITERS:
            await self._other(scope, receive, send, body)
            return
        ask = json.loads(body)
        ask = {**ask, "model": deployment or ask["model"]}
        if not await self._misbehave(ask["model"], receive, send):
            write_events, write_body = WRITERS[scope["path"]]
            if ask.get("stream"):
                await self._stream(ask["model"], receive, send, write_events(ask["model"], ask))
            else:
                await self._whole(ask["model"], receive, send, write_body(ask["model"]))

    async def _note_departure(self, receive, body: bytes) -> dict:
        message = await receive()
        if message["type"] == "http.disconnect":
            self.gone_at.setdefault(body, time.monotonic())
        return message

    async def _misbehave(self, model, receive, send) -> bool:
        """Whether the model is one that gives no answer, or an odd one, whatever it is asked."""
        if model.startswith("busy-") and len(self.seen) % 2:
            await send_json(send, 429, ERROR_BODY, headers=[(b"retry-after", model.removeprefix("busy-").encode())])
        elif model in ERRORS:
            await send_json(send, ERRORS[model], ERROR_BODY, [(b"retry-after", b"7"), (b"x-request-id", b"req-1")])
        elif model == "long-header":
            await send_json(send, 200, openai_body(model), [(b"x-echo", b"e" * 20_000)])
        elif model == "moved":
            await send_json(send, 307, b"{}", [(b"location", b"/v1/models")])
        elif model == "silent":
            gone = await sleep_or_leave(receive, 60)
            self.left += gone
        else:
            return False
        return True

    async def _other(self, scope, receive, send, body: bytes) -> None:
        if scope["path"] in ("/v1/files/slow/content", "/v1/images/generations"):
            gone = await sleep_or_leave(receive, 60)
            self.left += gone
        elif scope["path"].endswith("/content"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"audio/mpeg")]})
            for part in CONTENT:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        elif scope["path"] == "/v1/embeddings":
            await send_json(send, 200, EMBEDDED)
        elif self.kept and scope["path"] in ("/v1/chat/completions/chatcmpl-1", "/v1/responses/compact"):
            await send_json(send, 200, self.kept)
        elif scope["path"] == "/v1/messages/count_tokens":
            await send_json(send, 200, b'{"input_tokens": 12}')
        else:
            answer = {"id": "file-1", "object": "file", "method": scope["method"], "bytes": len(body)}
            await send_json(send, 201, json.dumps(answer).encode())

    async def _whole(self, model, receive, send, body: bytes) -> None:
        if model.startswith("delay-") and await sleep_or_leave(receive, int(model.removeprefix("delay-")) / 1000):
            self.left += 1
            return
        if not self.counts:
            body = json.dumps({**json.loads(body), "usage": None}).encode()
        if self.tokens:
            read, written = self.tokens
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            body = json.dumps({**json.loads(body), "usage": usage}).encode()
        if model == "flood-in-one":
            body = json.dumps({**json.loads(body), "padding": "x" * 3_000_000}).encode()
        headers = [(b"set-cookie", b"edge=1"), (b"x-ratelimit-remaining", b"41")]
        if model == "zipped":
            body = gzip.compress(body)
            headers.append((b"content-encoding", b"gzip"))
        if model == "broken":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9999")]})
            await send({"type": "http.response.body", "body": body[:40], "more_body": True})
            return
        await send_json(send, 200, body, headers)

    async def _stream(self, model, receive, send, events: list[bytes]) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.streaming += 1
        gone = asyncio.create_task(left(receive))
        try:
            if model == "broken":
                events = events[:3]
            elif model == "never-done":
                events = events[:-1]
            elif model == "endless":
                events = events[:2] * 10_000
            elif model == "flood":
                events = [*events[:1], *[b": " + b"x" * 65_000 + b"\n\n"] * 2000]
            for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.wait([gone], timeout=0 if model == "flood" else 0.002)
                if gone.done():
                    self.left += 1
                    return
            if model != "broken":
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            self.streaming -= 1


def _without_azure(scope):
    """The scope as if the path were OpenAI's, and the deployment that it names."""
    path = scope["path"]
    if not path.startswith("/openai/"):
        return scope, ""
    rest, deployment = path.removeprefix("/openai"), ""
    if rest.startswith("/deployments/"):
        _, _, deployment, rest = rest.split("/", 3)
        rest = f"/{rest}"
    return {**scope, "path": rest if rest.startswith("/v1/") else f"/v1{rest}"}, deployment


def openai_body(model: str) -> bytes:
    usage = {
        "prompt_tokens": 21,
        "completion_tokens": 4,
        "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "unknown_field": {"kept": True},
    }
    return json.dumps(body if model == "uncounted" else body | {"usage": usage}).encode()


def anthropic_body(model: str) -> bytes:
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {
                "input_tokens": 21,
                "output_tokens": 4,
                "cache_read_input_tokens": 8,
                "cache_creation_input_tokens": 2,
            },
        }
    ).encode()


def openai_events(model: str, ask: dict) -> list[bytes]:
    def chunk(delta: dict, finish=None, **more) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": [choice],
        }
        return b"data: " + json.dumps(body | more).encode() + b"\n\n"

    events = [chunk({"role": "assistant", "content": ""}), *[chunk({"content": word}) for word in WORDS]]
    events.append(chunk({}, "stop"))
    if (ask.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25}
        events.append(chunk({}, choices=[], usage=usage))
    return [*events, b"data: [DONE]\n\n"]


def anthropic_events(model: str, ask: dict) -> list[bytes]:
    def event(kind: str, **body) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode()

    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "output_tokens": 1},
    }
    return [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *[event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in WORDS],
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 4}),
        event("message_stop"),
    ]


def response_object(model: str) -> dict:
    part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": model,
        "output": [{"id": "rs_1", "type": "reasoning", "summary": []}, message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 21,
            "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 25,
        },
    }


def responses_body(model: str) -> bytes:
    return json.dumps(response_object(model)).encode()


def responses_events(model: str, ask: dict) -> list[bytes]:
    whole = response_object(model)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    deltas = [{"type": "response.output_text.delta", "delta": word, "logprobs": [], **place} for word in WORDS]
    message = whole["output"][1]
    (part,) = message["content"]
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.output_item.added", "output_index": 1, "item": message | {"content": []}},
        {"type": "response.content_part.added", "part": part | {"text": ""}, **place},
        *deltas,
        {"type": "response.output_text.done", "text": TEXT, "logprobs": [], **place},
        {"type": "response.content_part.done", "part": part, **place},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.completed", "response": whole},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps(event | {'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    ]


WRITERS = {
    "/v1/chat/completions": (openai_events, openai_body),
    "/v1/responses": (responses_events, responses_body),
    "/v1/messages": (anthropic_events, anthropic_body),
}
