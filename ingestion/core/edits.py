"""The only edits that are made to a caller's JSON on its way to the teacher: every other byte stays what it was."""

import re
from collections.abc import Iterator

import orjson

from ingestion.core.reading import UnableToParse

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_STRING_OR_SCALAR = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,{}\[\]"]+', re.DOTALL)
_ASKS_USAGE = b'"stream_options":{"include_usage":true}'


def set_model(raw: bytes, model: str) -> bytes:
    """The JSON object in `raw` with another top-level `model`, which is put first where there was none.

    Raises UnableToParse where `model` is a list or an object. `raw` is a valid JSON object.
    """
    named = orjson.dumps(model)
    spans = list(_model_spans(raw))
    if not spans:
        return _with_first(raw, b'"model":' + named)
    parts, at = [], 0
    for start, end in spans:  # a laxer provider may read the first of two, or the last
        parts += [raw[at:start], named]
        at = end
    return b"".join(parts) + raw[at:]


def ask_usage(raw: bytes) -> bytes:
    """The JSON object in `raw` with `stream_options.include_usage`; `raw` is a valid one without `stream_options`."""
    return _with_first(raw, _ASKS_USAGE)


def _with_first(raw: bytes, member: bytes) -> bytes:
    head, brace, rest = raw.partition(b"{")
    comma = b"" if rest.lstrip(b" \t\r\n").startswith(b"}") else b","
    return head + brace + member + comma + rest


def _model_spans(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the values of the top-level key `model` lie."""
    depth = 0
    for token in _TOKEN.finditer(raw):
        text = token.group()
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif depth == 1 and _is_model(text) and (colon := _COLON.match(raw, token.end())):
            value = _STRING_OR_SCALAR.match(raw, colon.end())
            if value is None:
                raise UnableToParse("`model` must be a string.", param="model")
            yield value.span()


def _is_model(token: bytes) -> bool:
    """Whether a string is `model`, also where its letters are spelt otherwise."""
    return token == b'"model"' or (len(token) <= 32 and b"\\" in token and orjson.loads(token) == "model")
