"""Why a stranger's JSON cannot hurt us: every value of a body is read through one of these checked doors.

A vendor's own parser may be laxer; what is refused here never reaches a model on our word. No message quotes the body.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, cast

import orjson

Json = dict[str, Any]

MOST_MARKS: Final = 500_000  # commas and brackets of a JSON: so many small values take 50 ms
MOST_MARKS_TWICE: Final = 100_000  # where it is to be read with its repeats, in Python: the same
MOST_TOKENS: Final = 2**31 - 1  # what a count's column holds
_ESCAPED_LETTERS: Final = (b"\\u005", b"\\u006", b"\\u007")  # how the letters of a watched key could be spelt otherwise


class UnableToParse(Exception):
    """The bytes are not what the dialect says. `message` is safe to show: it names fields and never quotes the body."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def load_object(raw: bytes, *, unique: Sequence[str] = ()) -> Json:
    """The JSON object in `raw`. Raises UnableToParse on anything else, on a top-level key of `unique` given twice, and
    on so many values that all other calls would wait while they are read.

    orjson itself refuses invalid UTF-8, lone surrogates, NaN, infinities and nesting past 1,024.
    """
    marks = _count_marks(raw)
    if marks > MOST_MARKS:
        raise UnableToParse(f"The JSON has more than {MOST_MARKS:,} commas and brackets.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise UnableToParse("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise UnableToParse("The body is not a JSON object.")
    if unique and _may_repeat(raw, [name for name in unique if name in body]):
        if marks > MOST_MARKS_TWICE:
            raise UnableToParse("The JSON is too large to tell whether one of its keys is given twice.")
        _refuse_repeats(raw, unique)
    return body


def canonical_json(value: object) -> str:
    """The value as compact JSON with sorted keys. Raises UnableToParse where it is nested too deep to write."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        raise UnableToParse("The JSON is nested too deep.") from None


def take_text(body: Json, name: str, *, required: bool = False) -> str | None:
    """A string, or None where absent or null. Raises UnableToParse on another type."""
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise UnableToParse(f"`{name}` must be a string.", param=name)
    return value


def take_flag(body: Json, name: str) -> bool:
    """A boolean, False where absent or null. Raises UnableToParse on another type."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise UnableToParse(f"`{name}` must be a boolean.", param=name)
    return value


def take_count(body: Json, name: str) -> int | None:
    """A whole number from 1 to 2^31 - 1, or None where absent or null. Raises UnableToParse on anything else."""
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= MOST_TOKENS:
        raise UnableToParse(f"`{name}` must be a positive whole number.", param=name)
    return value


def take_object(body: Json, name: str) -> Json:
    """An object, empty where absent or null. Raises UnableToParse on another type."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnableToParse(f"`{name}` must be an object.", param=name)
    return value


def take_objects(body: Json, name: str) -> list[Json]:
    """An array of objects, empty where absent or null. Raises UnableToParse on another type."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnableToParse(f"`{name}` must be an array.", param=name)
    for item in value:
        if not isinstance(item, dict):
            raise UnableToParse(f"`{name}` must hold objects only.", param=name)
    return cast(list[Json], value)


def take_texts(body: Json, name: str) -> tuple[str, ...]:
    """A string or an array of strings, empty where absent or null. Raises UnableToParse on another type."""
    value = body.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UnableToParse(f"`{name}` must be a string or an array of strings.", param=name)
    return tuple(value)


def read_tokens(usage: Json, name: str) -> int:
    """A provider's token count; 0 where it is absent or nonsense, since a wrong count must not lose the answer."""
    value = usage.get(name)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else 0


def is_storable(text: str) -> bool:
    """Whether PostgreSQL takes the text: no NUL, and nothing that is no Unicode."""
    return "\x00" not in text and not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _count_marks(raw: bytes) -> int:
    """At least as many as there are values; those in texts count too. None of what is short."""
    return 0 if len(raw) <= MOST_MARKS_TWICE else raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _may_repeat(raw: bytes, names: Iterable[str]) -> bool:
    """Whether a careful look is due: a watched key's bytes occur twice (maybe deeper), or letters are escaped."""
    twice = any(raw.count(_quoted(name)) > 1 for name in names)
    return twice or (b"\\u00" in raw and any(mark in raw for mark in _ESCAPED_LETTERS))


@cache
def _quoted(name: str) -> bytes:
    return b'"%b"' % name.encode()


def _refuse_repeats(raw: bytes, names: Sequence[str]) -> None:
    """We would read the last of two keys and bill by it, while the vendor may read the first."""
    try:
        pairs = json.loads(raw.decode(), object_pairs_hook=list)
    except (ValueError, RecursionError):  # digits past Python's limit, nesting past its stack
        raise UnableToParse("The JSON is too deep or its numbers too long.") from None
    seen = [key for key, _ in pairs]
    for name in names:
        if seen.count(name) > 1:
            raise UnableToParse(f"`{name}` is given twice.", param=name)
