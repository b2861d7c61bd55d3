"""The door to the wire formats: what a caller sent becomes an `Ask`, an `Answer` becomes what that caller can read."""

from types import ModuleType
from typing import Final

import msgspec

from ingestion.core import anthropic_wire, openai_wire, responses_wire
from ingestion.core.calls import Answer, Ask, Dialect, Finish
from ingestion.core.reading import UnableToParse, load_object
from ingestion.core.sse_events import decode_passing

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

_LONGEST_USAGE: Final = 65_536  # bytes

_WIRES: dict[Dialect, ModuleType] = {
    Dialect.OPENAI: openai_wire,
    Dialect.RESPONSES: responses_wire,
    Dialect.ANTHROPIC: anthropic_wire,
}


def parse_ask(dialect: Dialect, raw: bytes, *, model: str = "") -> Ask:
    """Read a request's body; `model` is what its path names, as that of Azure's chat completions does.

    Raises UnableToParse on anything but a well-typed JSON object, and on duplicates of the keys that decide what is
    asked and paid. Unknown fields are ignored: the teacher gets `raw`.
    """
    ask: Ask = openai_wire.parse_ask(raw, model=model) if model else _WIRES[dialect].parse_ask(raw)
    return ask


def parse_answer(dialect: Dialect, raw: bytes) -> Answer:
    """Read a whole answer's body. Raises UnableToParse on anything else, an error's body included."""
    answer: Answer = _WIRES[dialect].parse_answer(raw)
    return answer


def parse_passing_ask(dialect: Dialect, raw: bytes) -> Ask:
    """What any endpoint's request says of its model and its subject, each read by itself; nothing where it is no JSON
    object."""
    try:
        body = load_object(raw)
    except UnableToParse:
        return Ask(dialect=dialect, model="", messages=(), raw=b"")
    metadata = body.get("metadata")
    subjects = [metadata.get("user_id") if isinstance(metadata, dict) else None]
    if dialect is not Dialect.ANTHROPIC:
        subjects = [body.get("safety_identifier"), body.get("user"), *subjects]
    subject = next((name for name in map(_read_name, subjects) if name), None)
    kept = raw if subject or not any(subjects) else b""  # it says whose it is in no way that an erasure could find
    return Ask(dialect=dialect, model=_read_name(body.get("model")), messages=(), raw=kept, subject=subject)


def _read_name(value: object) -> str:
    """A name, also where a laxer provider is given a number for one."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def parse_passing_answer(dialect: Dialect, raw: bytes) -> Answer:
    """What any endpoint's answer says of its model and what it used, and nothing else. Raises UnableToParse."""
    try:
        body = decode_passing(raw)
        usage = msgspec.json.decode(body.usage) if len(bytes(body.usage)) <= _LONGEST_USAGE else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UnableToParse("The body is no JSON object that tells a model and a usage.") from None
    read = anthropic_wire.read_usage if dialect is Dialect.ANTHROPIC else responses_wire.read_either_usage
    return Answer(text="", finish=Finish.OTHER, model=body.model or "", usage=read(usage))


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
