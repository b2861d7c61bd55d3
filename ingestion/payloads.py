"""Opens a call's sealed bodies and reads them: the only way from rows back to what was asked and answered."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models.functions import Coalesce, Length

from ingestion.core.calls import Answer, Ask, Dialect, body_context
from ingestion.core.dialects import parse_answer, parse_ask
from ingestion.core.reading import UnableToParse
from ingestion.core.sse import StreamReader
from ingestion.models import Call, Payload
from tenants.core.sealing import UnableToOpen, open_sealed
from tenants.scope import tenant_in_force

BATCH_ROWS = 500
BATCH_BYTES = 32 * 2**20  # of bodies that are in memory together


class UnableToReadPair(Exception):
    """The bodies are missing, sealed for another place, or not of the dialect."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One call with what was asked and answered."""

    call: Call
    ask: Ask = field(repr=False)
    answer: Answer = field(repr=False)


def open_bodies(payload: Payload, data_key: bytes) -> tuple[bytes, bytes]:
    """The request and response bodies in the clear. Raises UnableToReadPair."""
    if payload.request_sealed is None or payload.response_sealed is None:
        raise UnableToReadPair("a body is missing")
    return (
        _open(payload.request_sealed, payload.call_id, data_key, "request"),
        _open(payload.response_sealed, payload.call_id, data_key, "response"),
    )


def read_pair(call: Call, payload: Payload, data_key: bytes) -> Pair:
    """What was asked and answered, streamed or not. Raises UnableToReadPair."""
    request, response = open_bodies(payload, data_key)
    dialect = Dialect(call.dialect)
    try:
        ask = parse_ask(dialect, request, model=call.path_model)
        answer = read_stream(dialect, response) if call.stream else parse_answer(dialect, response)
    except UnableToParse as error:
        raise UnableToReadPair("a body is not of the dialect") from error
    return Pair(call, ask, answer)


def read_stream(dialect: Dialect, body: bytes) -> Answer:
    """The answer that a recorded stream adds up to."""
    reader = StreamReader(dialect)
    reader.feed(body)
    return reader.answer()


def payloads_of(calls: Iterable[Call]) -> dict[UUID, Payload]:
    """The payloads of these calls, by call id."""
    found = Payload.objects.filter(call_id__in=[call.id for call in calls])
    return {payload.call_id: payload for payload in found}


def in_batches(calls: Sequence[Call], *, most_bytes: int = BATCH_BYTES) -> Iterator[list[Call]]:
    """The calls in their order, as many at a time as have bodies of `most_bytes` together; a larger one is alone."""
    for start in range(0, len(calls), BATCH_ROWS):
        rows = calls[start : start + BATCH_ROWS]
        sizes = _sizes_of(rows)
        batch: list[Call] = []
        room = most_bytes
        for call in rows:
            size = sizes.get(call.id, 0)
            if batch and size > room:
                yield batch
                batch, room = [], most_bytes
            batch.append(call)
            room -= size
        yield batch


def readable_pairs(calls: Sequence[Call], data_key: bytes) -> Iterator[Pair]:
    """The pairs that can be read, in the order of the calls; what cannot is left out."""
    for batch in in_batches(calls):
        payloads = payloads_of(batch)
        for call in batch:
            payload = payloads.get(call.id)
            if payload is None:
                continue
            try:
                yield read_pair(call, payload, data_key)
            except UnableToReadPair:
                continue


def _sizes_of(calls: Iterable[Call]) -> dict[UUID, int]:
    """Bytes of the bodies, by call id, without reading them."""
    bodies = [Coalesce(Length(column), 0) for column in ("request_sealed", "response_sealed")]
    found = Payload.objects.filter(call_id__in=[call.id for call in calls])
    return dict(found.values_list("call_id", bodies[0] + bodies[1]))


def _open(sealed: bytes | memoryview, call_id: UUID, data_key: bytes, column: str) -> bytes:
    try:
        context = body_context(str(call_id), str(tenant_in_force()), column)
        return open_sealed(data_key, bytes(sealed), context=context)
    except UnableToOpen as error:
        raise UnableToReadPair("sealed for another place") from error
