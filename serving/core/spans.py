"""Finds where the values of a JSON text lie, so that a model's doubt is read off the tokens that carry meaning."""

import re

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+0-9.eE]+|true|false|null|[{}\[\]:,]', re.DOTALL)
_STRUCTURE = frozenset("{}[]:,")


def leaf_spans(text: str) -> list[tuple[int, int]]:
    """The [start, end) character spans of all leaf values (strings without their quotes, numbers, true, false, null).

    `text` is valid JSON; keys are no leaves. An empty string keeps its closing quote, so that no span is empty.
    """
    found = list(_TOKEN.finditer(text))
    spans: list[tuple[int, int]] = []
    for index, match in enumerate(found):
        if match.group() in _STRUCTURE or (index + 1 < len(found) and found[index + 1].group() == ":"):
            continue
        spans.append(_inside(match))
    return spans


def _inside(match: re.Match[str]) -> tuple[int, int]:
    start, end = match.span()
    if match.group()[0] != '"':
        return start, end
    return (start + 1, end - 1) if end - start > 2 else (start + 1, end)
