"""What is handed around between a connection and whoever answers on it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ingestion.core.calls import Dialect, Unshown

Message = dict[str, Any]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Watch = Callable[[Callable[[], None] | None], None]


class Request(Unshown, frozen=True):
    """One HTTP request in a dialect. Header names are lower case; `target` is the path and the query as sent, `path` is
    raw and as the dialect's own provider has it. `provider` is whom the path is for, `path_model` the model in it.

    `fields` are the headers by name, of those that are repeated the last. `watch(call)` has `call` called once the
    caller has left, or raises Gone where that was before; `watch(None)` takes it back.
    """

    dialect: Dialect
    target: str
    headers: Headers
    fields: Mapping[bytes, bytes]
    receive: Receive
    send: Send
    watch: Watch
    path: bytes
    provider: str
    path_model: str = ""


class Gone(Exception):
    """The caller hung up before the request was whole."""


class TooLarge(Exception):
    """The request's body is over the limit."""


class TooMuch(Exception):
    """The request's body is more than there is room for."""
