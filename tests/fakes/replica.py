"""vLLM's /v1/completions with answers set by the test: `completions` by adapter, and a fault for all of them."""

import json
from dataclasses import dataclass, field

from tests.fakes.asgi import read_body, send_json, sleep_or_leave


def completion(
    tokens: list[tuple[str, float]], *, runner_up: float = -6.0, finish: str = "stop", end: str = "<|im_end|>"
) -> dict:
    """A completion of these (token, log-probability) pairs, in vLLM's shape: the end token counts, its text no."""
    seen = [*tokens, (end, -0.0001)] if finish == "stop" else tokens
    offsets = [sum(len(token) for token, _ in seen[:index]) for index in range(len(seen))]
    logprobs = {
        "tokens": [token for token, _ in seen],
        "token_logprobs": [logprob for _, logprob in seen],
        "text_offset": offsets,
        "top_logprobs": [{token: logprob, "?": runner_up} for token, logprob in seen],
    }
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "base",
        "choices": [
            {
                "index": 0,
                "text": "".join(token for token, _ in tokens),
                "logprobs": logprobs,
                "finish_reason": finish,
                "stop_reason": None,
            }
        ],
        "usage": {"prompt_tokens": 17, "total_tokens": 17 + len(seen), "completion_tokens": len(seen)},
    }


@dataclass
class Replica:
    """The ASGI app. `fault`: "", late, malformed, failing, too_long."""

    completions: dict[str, dict] = field(default_factory=dict)
    fault: str = ""
    asked: list[dict] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        ask = json.loads(await read_body(receive))
        self.asked.append(ask)
        found = self.completions.get(ask["model"])
        if self.fault == "late" and await sleep_or_leave(receive, 30):
            return
        if self.fault == "too_long":
            await send_json(send, 400, b'{"error":{"message":"beyond the maximum context length"}}')
        elif self.fault == "failing":
            await send_json(send, 500, b'{"error":{"message":"engine dead"}}')
        elif found is None:
            await send_json(send, 404, b'{"error":{"message":"The model does not exist."}}')
        else:
            await send_json(send, 200, b'{"choices":[{}]}' if self.fault == "malformed" else json.dumps(found).encode())
