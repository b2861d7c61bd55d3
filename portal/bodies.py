"""What was asked and answered, opened for a person whose role allows it, and said so in the event log."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec

from ingestion.core.calls import Answer, Arm, Ask
from ingestion.core.templates import Template, extract_query
from ingestion.models import Call, Payload, Workload
from ingestion.payloads import Pair, UnableToReadPair, open_bodies, read_pair, readable_pairs
from serving.models import Audit
from tenants.events import record_event
from tenants.provision import data_key_in_force

EXAMPLES_PER_ARM = 3
LONGEST_SHOWN = 20_000


@dataclass(frozen=True, slots=True)
class Shown:
    """One call of a workload: the query alone, the answer, and what an audit said of it."""

    call: Call
    query: str = field(repr=False)
    answer: str = field(repr=False)
    verdict: str = ""  # agreed, differed, or '' where nobody else was asked


@dataclass(frozen=True, slots=True)
class Bodies:
    """A call's bodies as text, with the answer a stream adds up to."""

    request: str = field(repr=False)
    response: str = field(repr=False)
    answer: str = field(repr=False, default="")


def open_examples(workload: Workload, *, actor: str, now: datetime) -> dict[str, list[Shown]]:
    """The last few calls of each arm. For the tenant in force; recorded as an event."""
    template = msgspec.convert(workload.template, Template)
    data_key = data_key_in_force()
    found = {arm.value: list(readable_pairs(_last(workload, arm), data_key)) for arm in Arm}
    verdicts = _verdicts([pair.call.id for pairs in found.values() for pair in pairs])
    record_event(
        "payloads.read", now=now, actor=actor, subject_id=workload.id, calls=sum(len(pairs) for pairs in found.values())
    )
    return {arm: [_shown(pair, template, verdicts) for pair in pairs] for arm, pairs in found.items()}


def open_call(call: Call, *, actor: str, now: datetime) -> Bodies | None:
    """The bodies of one call; None where they were not kept. For the tenant in force; recorded as an event."""
    payload = Payload.objects.filter(call_id=call.id).first()
    if payload is None:
        return None
    data_key = data_key_in_force()
    try:
        request, response = open_bodies(payload, data_key)
    except UnableToReadPair:
        return None
    record_event("payload.read", now=now, actor=actor, subject_id=call.id)
    return Bodies(_pretty(request), _pretty(response), _assembled(call, payload, data_key))


def answer_text(answer: Answer) -> str:
    """The answer as a person reads it: its text, or the functions it wants called."""
    called = [f"{one.name}({one.arguments})" for one in answer.tool_calls]
    return "\n".join([part for part in (answer.text, *called) if part])[:LONGEST_SHOWN]


def _last(workload: Workload, arm: Arm) -> list[Call]:
    calls = Call.objects.filter(workload_id=workload.id, arm=arm, status=200, complete=True)
    return list(calls.order_by("-at")[:EXAMPLES_PER_ARM])


def _verdicts(call_ids: Sequence[UUID]) -> dict[UUID, str]:
    audits = Audit.objects.filter(call_id__in=call_ids, status=Audit.Status.DONE).exclude(differs=None)
    return {
        call_id: "differed" if differs else "agreed" for call_id, differs in audits.values_list("call_id", "differs")
    }


def _shown(pair: Pair, template: Template, verdicts: dict[UUID, str]) -> Shown:
    query = extract_query(template, pair.ask) or _last_turn(pair.ask)
    return Shown(pair.call, query[:LONGEST_SHOWN], answer_text(pair.answer), verdicts.get(pair.call.id, ""))


def _last_turn(ask: Ask) -> str:
    return next((message.text for message in reversed(ask.messages) if message.role == "user"), "")


def _assembled(call: Call, payload: Payload, data_key: bytes) -> str:
    try:
        return answer_text(read_pair(call, payload, data_key).answer)
    except UnableToReadPair:
        return ""


def _pretty(body: bytes) -> str:
    text = body[:LONGEST_SHOWN].decode("utf-8", "replace")
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)[:LONGEST_SHOWN]
    except (ValueError, RecursionError):
        return text
