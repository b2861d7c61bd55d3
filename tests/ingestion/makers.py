"""Makes calls as the gateway would have recorded them, sealed for their tenant, for tests that start at the log."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from ingestion.core.calls import Arm, CallRecord, Dialect, body_context
from ingestion.core.dialects import parse_ask
from ingestion.core.fingerprint import fingerprint
from ingestion.store import store_calls
from tenants.core.sealing import seal
from tenants.provision import data_key_in_force
from tenants.scope import acting_for

SYSTEM = "You route messages of customers of a freight company. Answer with one label: parcel, refund, other."
LABELS = ("parcel", "refund", "other")


def uuid7(at: datetime) -> str:
    """A UUIDv7 of an instant."""
    stamp = int(at.timestamp() * 1000)
    return str(UUID(int=(stamp << 80) | (7 << 76) | (2 << 62) | int.from_bytes(os.urandom(7))))


def request_of(query: str, *, system: str = SYSTEM, model: str = "gpt-4o", **fields: object) -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": query}]
    return msgspec.json.encode({"model": model, "messages": messages, **fields})


def response_of(text: str, *, model: str = "gpt-4o", finish: str = "stop") -> bytes:
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
        }
    )


def responded_of(text: str) -> bytes:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return msgspec.json.encode(
        {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o", "output": [message]}
    )


def record_of(
    tenant_id: UUID,
    query: str,
    answer: str,
    *,
    at: datetime,
    finish: str = "stop",
    system: str = SYSTEM,
    asked_with: dict[str, object] | None = None,
    **facts: object,
) -> CallRecord:
    """One answered call's record; `asked_with` makes it a response. Enter `acting_for(tenant_id)` first."""
    call_id, key_id = str(facts.pop("id", uuid7(at))), str(facts.pop("key_id", tenant_id))
    request, response = request_of(query, system=system), response_of(answer, finish=finish)
    dialect = Dialect.OPENAI if asked_with is None else Dialect.RESPONSES
    if asked_with is not None:
        request = msgspec.json.encode({"model": "gpt-4o", "instructions": system, "input": query, **asked_with})
        response = responded_of(answer)
    key = data_key_in_force()
    settings = {
        "asked_model": "gpt-4o",
        "answered_model": "gpt-4o",
        "fingerprint": fingerprint(parse_ask(dialect, request)),
        "arm": Arm.TEACHER,
        "input_tokens": 40,
        "output_tokens": 2,
        "request_sealed": seal(key, request, context=body_context(call_id, str(tenant_id), "request")),
        "response_sealed": seal(key, response, context=body_context(call_id, str(tenant_id), "response")),
        **facts,
    }
    return CallRecord(
        id=call_id, tenant_id=str(tenant_id), key_id=key_id, at=at.timestamp(), dialect=dialect, **settings
    )


def query_of(number: int) -> tuple[str, str]:
    """The n-th of many different queries, with its label."""
    places = ("Rotterdam", "Gdansk", "Porto", "Turin", "Lyon", "Malmo", "Izmir", "Cork", "Ghent", "Split", "Varna")
    things = ("pallet", "crate", "drum", "parcel", "container", "reel", "sack", "tube", "trolley", "envelope")
    place, thing = places[number % 11], things[number // 11 % 10]
    asks = (
        f"when does {thing} {number * 7919 % 99991} arrive in {place}, it left {number % 28 + 1} days ago",
        f"i was charged twice for {thing} {number * 6151 % 99991} from {place} and want {number % 90 + 10} euros back",
        f"do you have jobs in {place} for people who like {thing}s, my number is {number * 3571 % 99991}",
    )
    return asks[number % 3], LABELS[number % 3]


def log_calls(
    tenant_id: UUID,
    count: int,
    *,
    now: datetime,
    start: int = 0,
    pair: Callable[[int], tuple[str, str]] = query_of,
    **facts: object,
) -> list[CallRecord]:
    """Store `count` answered calls, a minute apart, the last one just before now."""
    with acting_for(tenant_id):
        records = [
            record_of(tenant_id, *pair(start + n), at=now - timedelta(minutes=count - n), **facts) for n in range(count)
        ]
    store_calls(records, price=lambda record: None, now=now)
    return records
