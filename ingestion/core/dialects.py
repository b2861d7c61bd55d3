"""The door to the wire formats: what a caller sent becomes an `Ask`, an `Answer` becomes what that caller can read."""

from types import ModuleType

from ingestion.core import anthropic_wire, openai_wire, responses_wire
from ingestion.core.calls import Answer, Ask, Dialect, Finish
from ingestion.core.reading import UnableToParse, load_object, take_object, take_text

__all__ = [
    "UnableToParse",
    "parse_answer",
    "parse_ask",
    "parse_passing_answer",
    "parse_passing_ask",
    "render_answer",
    "render_error",
    "render_stream",
]

_WIRES: dict[Dialect, ModuleType] = {
    Dialect.OPENAI: openai_wire,
    Dialect.RESPONSES: responses_wire,
    Dialect.ANTHROPIC: anthropic_wire,
}


def parse_ask(dialect: Dialect, raw: bytes) -> Ask:
    """Read a request's body.

    Raises UnableToParse on anything but a well-typed JSON object, and on duplicates of the keys that decide what is
    asked and paid. Unknown fields are ignored: the teacher gets `raw`.
    """
    ask: Ask = _WIRES[dialect].parse_ask(raw)
    return ask


def parse_answer(dialect: Dialect, raw: bytes) -> Answer:
    """Read a whole answer's body. Raises UnableToParse on anything else, an error's body included."""
    answer: Answer = _WIRES[dialect].parse_answer(raw)
    return answer


def parse_passing_ask(dialect: Dialect, raw: bytes) -> Ask:
    """What any endpoint's request says of its model and its subject; nothing where it is nothing that we read."""
    try:
        body = load_object(raw)
        subject = take_text(take_object(body, "metadata"), "user_id")
        if dialect is not Dialect.ANTHROPIC:
            subject = take_text(body, "safety_identifier") or take_text(body, "user")
        return Ask(dialect=dialect, model=take_text(body, "model") or "", messages=(), raw=raw, subject=subject)
    except UnableToParse:
        return Ask(dialect=dialect, model="", messages=(), raw=b"")


def parse_passing_answer(dialect: Dialect, raw: bytes) -> Answer:
    """What any endpoint's answer says of its model and what it used, and nothing else. Raises UnableToParse."""
    body = load_object(raw)
    usage = body.get("usage")
    wire = responses_wire if isinstance(usage, dict) and "input_tokens" in usage else openai_wire
    read = anthropic_wire.read_usage if dialect is Dialect.ANTHROPIC else wire.read_usage
    return Answer(text="", finish=Finish.OTHER, model=take_text(body, "model") or "", usage=read(usage))


def render_answer(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """A whole answer's body in the ask's dialect; `created` is seconds since the epoch.

    Raises UnableToParse where the dialect carries tool arguments as an object and the answer's are none.
    """
    body: bytes = _WIRES[ask.dialect].render_answer(ask, answer, call_id=call_id, created=created)
    return body


def render_stream(ask: Ask, answer: Answer, *, call_id: str, created: int) -> bytes:
    """The same answer as the entire body of an event stream. Raises like `render_answer`."""
    body: bytes = _WIRES[ask.dialect].render_stream(ask, answer, call_id=call_id, created=created)
    return body


def render_error(dialect: Dialect, *, status: int, kind: str, message: str, param: str | None = None) -> bytes:
    """An error's body as the vendor words it; `kind` is the vendor's error type, `status` the HTTP status beside it."""
    if dialect is Dialect.ANTHROPIC:
        return anthropic_wire.render_error(kind=kind, message=message)
    code = "invalid_api_key" if status == 401 else "model_not_found" if status == 404 and param == "model" else None
    return openai_wire.render_error(kind=kind, message=message, param=param, code=code)
