"""The encoder's wire format with answers set by the test: `decisions` by adapter, and a fault for all of them."""

import json
from dataclasses import dataclass, field

from tests.fakes.asgi import read_body, send_json, sleep_or_leave


def decision(label: str = "track_shipment", *, sure: float = 0.97, novelty: float = 0.6, rung: str = "head") -> dict:
    """What the encoder says of a query it knows."""
    labels = [[label, sure], ["other", round(1 - sure, 6)]] if rung == "head" else []
    return {
        "labels": labels,
        "entropy": 0.1,
        "similarity": 0.9,
        "neighbours": [[label, 0.9]] * 5,
        "novelty": novelty,
    }


@dataclass
class Encoder:
    """The ASGI app. `fault`: "", late, malformed, failing."""

    decisions: dict[str, dict] = field(default_factory=dict)
    fault: str = ""
    asked: list[dict] = field(default_factory=list)

    async def __call__(self, scope, receive, send) -> None:
        ask = json.loads(await read_body(receive))
        self.asked.append({"path": scope["path"], **ask})
        found = self.decisions.get(ask["adapter"])
        if self.fault == "late" and await sleep_or_leave(receive, 30):
            return
        if self.fault == "failing":
            await send_json(send, 500, b"{}")
        elif found is None:
            await send_json(send, 404, b'{"error":"adapter not loaded"}')
        else:
            await send_json(send, 200, b'{"labels":"x"}' if self.fault == "malformed" else json.dumps(found).encode())
