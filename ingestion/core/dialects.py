"""The door to the wire formats: what a caller sent becomes an `Ask`, an `Answer` becomes what that caller can read."""

from ingestion.core import anthropic_wire, openai_wire
from ingestion.core.calls import Answer, Ask, Dialect
from ingestion.core.reading import UnableToParse

__all__ = [
    "UnableToParse",
    "parse_answer",
    "parse_ask",
    "render_answer",
    "render_error",
    "render_stream",
]


def parse_ask(dialect: Dialect, raw: bytes) -> Ask:
    """Read a request's body.

    Raises UnableToParse on anything but a well-typed JSON object, and on duplicates of the keys that decide what is
    asked and paid. Unknown fields are ignored: the teacher gets `raw`.
    """
    return openai_wire.parse_ask(raw) if dialect is Dialect.OPENAI else anthropic_wire.parse_ask(raw)


def parse_answer(dialect: Dialect, raw: bytes) -> Answer:
    """Read a whole answer's body. Raises UnableToParse on anything else, an error's body included."""
    return openai_wire.parse_answer(raw) if dialect is Dialect.OPENAI else anthropic_wire.parse_answer(raw)


def render_answer(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """A whole answer's body in the ask's dialect; `created` is seconds since the epoch.

    Raises UnableToParse where the dialect carries tool arguments as an object and the answer's are none.
    """
    write = openai_wire.render_answer if ask.dialect is Dialect.OPENAI else anthropic_wire.render_answer
    return write(ask, answer, call_id=call_id, created=created)


def render_stream(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """The same answer as the entire body of an event stream. Raises like `render_answer`."""
    write = openai_wire.render_stream if ask.dialect is Dialect.OPENAI else anthropic_wire.render_stream
    return write(ask, answer, call_id=call_id, created=created)


def render_error(dialect: Dialect, *, status: int, kind: str, message: str, param: str | None = None) -> bytes:
    """An error's body as the vendor words it; `kind` is the vendor's error type, `status` the HTTP status beside it."""
    if dialect is Dialect.ANTHROPIC:
        return anthropic_wire.render_error(kind=kind, message=message)
    code = "invalid_api_key" if status == 401 else "model_not_found" if status == 404 and param == "model" else None
    return openai_wire.render_error(kind=kind, message=message, param=param, code=code)
