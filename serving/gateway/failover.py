"""Asks a call's destinations in turn: where one cannot be reached, is busy, broken or silent, the next is asked, until
one has given a status that is worth passing on. A call whose answer the provider keeps has one destination.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ingestion.core.calls import Ask
from ingestion.core.edits import model_span, put_model
from ingestion.core.reading import UnableToParse
from serving.core.destinations import passes_on
from serving.core.snapshot import ProviderEntry
from serving.gateway.authenticate import Caller
from serving.gateway.refusals import Refused
from serving.gateway.teachers import Teachers
from serving.gateway.upstream import Reply
from serving.gateway.wire import Request


class Heard:
    """What the caller asked, as it is put to each destination: under the model's name there, and else as it came."""

    __slots__ = ("_named", "_span", "ask")

    def __init__(self, ask: Ask, request: Request) -> None:
        self.ask = ask
        self._named = not request.path_model  # in the body, that is
        self._span: tuple[int, int] | None = None

    def at(self, destination: ProviderEntry) -> Ask:
        """A name that is in the path is not put into the body, nor one where the caller gave none. Raises Refused."""
        ask, model = self.ask, destination.model
        if not self._is_renamed(destination):
            return ask
        return msgspec.structs.replace(ask, model=model, raw=self._under(model) if self._named else ask.raw)

    def check(self, destinations: Sequence[ProviderEntry]) -> None:
        """See to it that the ask can be put to all of them, before the first is asked. Raises Refused."""
        if self._named and any(self._is_renamed(one) for one in destinations):
            self._find_name()

    def _is_renamed(self, destination: ProviderEntry) -> bool:
        model = destination.model
        return bool(model) and model != self.ask.model and bool(self.ask.model)

    def _find_name(self) -> tuple[int, int]:
        try:
            self._span = self._span or model_span(self.ask.raw)
        except UnableToParse as error:
            raise Refused(400, "invalid_request_error", error.message, param=error.param) from error
        return self._span

    def _under(self, model: str) -> bytes:
        return put_model(self.ask.raw, self._find_name(), model)


def ask_in_turn(
    request: Request,
    caller: Caller,
    destinations: Sequence[ProviderEntry],
    *,
    turn: Callable[[int], bytes],
    again: bool,
    placed: Callable[[], None],
    teachers: Teachers,
) -> Awaitable[Reply]:
    """The answer of the first destination that gives one, or what the last one said. `turn` is told the number of each
    that is asked, from 0, and gives the body for it; `again` is as in `Teachers.ask`. Raises Refused.
    """
    if len(destinations) > 1:
        return _ask_in_turn(request, caller, destinations, turn=turn, again=again, placed=placed, teachers=teachers)
    return teachers.ask(request, caller, destinations[0], method="POST", body=turn(0), again=again, placed=placed)


async def _ask_in_turn(
    request: Request,
    caller: Caller,
    destinations: Sequence[ProviderEntry],
    *,
    turn: Callable[[int], bytes],
    again: bool,
    placed: Callable[[], None],
    teachers: Teachers,
) -> Reply:
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
    """The answer, or None where the next should be asked. Raises Refused."""
    try:
        reply = await teachers.ask(
            request, caller, destination, method="POST", body=body, again=True, patient=False, placed=placed
        )
    except Refused as refused:
        if not refused.elsewhere:
            raise
        return None
    if not passes_on(reply.status):
        return reply
    reply.close()
    return None
