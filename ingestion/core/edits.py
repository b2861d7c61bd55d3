"""The only edits that are made to a caller's JSON on its way to the teacher: every other byte stays what it was."""

import re
from itertools import islice

import msgspec
import orjson

from ingestion.core.reading import UnableToParse

_MODEL = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+("(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.eE+-]*+|null)', re.DOTALL)
_MOST_NAMED = 8  # places that may look like the model's name: each is tried
_LONG = 1_000_000  # bytes: each decoding of so many takes milliseconds, for which every other call waits
_MOST_NAMED_IF_LONG = 2
_PROBE = "understudy"
_ASKS_USAGE = b'"stream_options":{"include_usage":true}'


class _Named(msgspec.Struct):
    model: str | int | msgspec.UnsetType | None = msgspec.UNSET


_read = msgspec.json.Decoder(_Named).decode


def model_span(raw: bytes) -> tuple[int, int]:
    """Where the value of the top-level `model` lies in a JSON object. Takes a few decodings at most, whatever is in it.

    Raises UnableToParse where it is no name, is spelt with escapes, or many other members are called so too.
    """
    probe = orjson.dumps(_PROBE * 2 if _name_in(raw) == _PROBE else _PROBE)
    for match in islice(_MODEL.finditer(raw), _MOST_NAMED if len(raw) <= _LONG else _MOST_NAMED_IF_LONG):
        start, end = match.span(1)
        if _name_in(raw[:start] + probe + raw[end:]) == orjson.loads(probe):
            return start, end
    raise UnableToParse("`model` must be a name, spelt without escapes.", param="model")


def put_model(raw: bytes, span: tuple[int, int], model: str) -> bytes:
    """The JSON object in `raw` with another model at the span where its own is."""
    return raw[: span[0]] + orjson.dumps(model) + raw[span[1] :]


def set_model(raw: bytes, model: str) -> bytes:
    """The JSON object in `raw` with another top-level `model`, which is put first where there is none.

    Raises UnableToParse as `model_span` does.
    """
    if _name_in(raw) is msgspec.UNSET:
        return _with_first(raw, b'"model":' + orjson.dumps(model))
    return put_model(raw, model_span(raw), model)


def ask_usage(raw: bytes) -> bytes:
    """The JSON object in `raw` with `stream_options.include_usage`; `raw` is a valid one without `stream_options`."""
    return _with_first(raw, _ASKS_USAGE)


def _name_in(raw: bytes) -> str | int | msgspec.UnsetType | None:
    try:
        return _read(raw).model
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnableToParse("`model` must be a string.", param="model") from error


def _with_first(raw: bytes, member: bytes) -> bytes:
    head, brace, rest = raw.partition(b"{")
    comma = b"" if rest.lstrip(b" \t\r\n").startswith(b"}") else b","
    return head + brace + member + comma + rest
