"""Asks a call's destinations in turn: where one cannot be reached, is busy or broken, the next is asked, while nothing
of an answer has been passed on. A call whose answer the provider keeps has one destination.
"""

from collections.abc import Callable, Sequence

import msgspec

from ingestion.core.calls import Ask
from ingestion.core.edits import set_model
from serving.core.destinations import passes_on
from serving.core.snapshot import ProviderEntry
from serving.gateway.authenticate import Caller
from serving.gateway.refusals import Refused
from serving.gateway.teachers import Teachers
from serving.gateway.upstream import Reply
from serving.gateway.wire import Request


def ask_at(destination: ProviderEntry, heard: Ask, request: Request) -> Ask:
    """What the caller asked, under the model's name at the destination. A name that is in the path is not put into the
    body, nor one where the caller gave none.
    """
    model = destination.model
    if not model or model == heard.model or not heard.model:
        return heard
    raw = heard.raw if request.path_model else set_model(heard.raw, model)
    return msgspec.structs.replace(heard, model=model, raw=raw)


async def ask_in_turn(
    request: Request,
    caller: Caller,
    destinations: Sequence[ProviderEntry],
    *,
    turn: Callable[[int], bytes],
    again: bool,
    placed: Callable[[], None],
    teachers: Teachers,
) -> Reply:
    """The answer of the first destination that gives one, or what the last one said. `turn` is told the number of each
    that is asked, from 0, and gives the body for it; `again` is as in `Teachers.ask`. Raises Refused.
    """
    last = len(destinations) - 1
    for number, destination in enumerate(destinations[:-1]):
        reply = await _try(request, caller, destination, body=turn(number), placed=placed, teachers=teachers)
        if reply is not None:
            return reply
        teachers.metrics.failovers += 1
    body = turn(last)
    return await teachers.ask(request, caller, destinations[last], method="POST", body=body, again=again, placed=placed)


async def _try(
    request: Request,
    caller: Caller,
    destination: ProviderEntry,
    *,
    body: bytes,
    placed: Callable[[], None],
    teachers: Teachers,
) -> Reply | None:
    """The answer, or None where the next should be asked, which is nearer than a second try here. Raises Refused."""
    try:
        reply = await teachers.ask(request, caller, destination, method="POST", body=body, again=False, placed=placed)
    except Refused as refused:
        if not refused.elsewhere:
            raise
        return None
    if not passes_on(reply.status):
        return reply
    reply.close()
    return None
