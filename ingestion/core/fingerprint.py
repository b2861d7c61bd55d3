"""Why two calls are the same kind of work: a digest of what stays constant when one program asks again.

A workload is found by its fingerprint, in the gateway, on each call. So what varies between calls (numbers, names in
quotes, dates, addresses) is stripped before the digest is taken, and the user's text is left out but for an opening
that a program wrote.
"""

import hashlib
import re
from functools import lru_cache
from typing import Final

import orjson

from ingestion.core.calls import Ask

PLACEHOLDER: Final = "\u27e8\u2026\u27e9"  # ⟨…⟩: what a variable part becomes

_MAX_SYSTEM_CHARS: Final = 20_000  # past this much of a system prompt nothing tells two workloads apart
_MAX_OPENING_CHARS: Final = 200
_MIN_OPENING_WORDS: Final = 3

_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
_ORDINAL: Final = r"(?:st|nd|rd|th)?"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_UUID_MIDDLE: Final = re.compile(r"-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-")

# (a mark without which the pattern cannot match, the pattern), in the order they are stripped. Each pattern begins with
# a literal or a plain character set, which lets `re` skip ahead, and has bounded or disjoint quantifiers, which keeps
# it linear on any text. One alternation of them all took five times as long.
_VARIABLES: Final = [
    ("://", re.compile(r"https?://[^\s\"'<>]+")),
    ('"', re.compile(r'"[^"\n]{0,200}"')),
    ("\u201c", re.compile("\u201c[^\u201c\u201d\n]{0,200}\u201d")),
    ("\u2018", re.compile("\u2018[^\u2018\u2019\n]{0,200}\u2019")),
    ("\u00ab", re.compile("\u00ab[^\u00ab\u00bb\n]{0,200}\u00bb")),
    ("`", re.compile(r"`[^`\n]{0,200}`")),
    ("'", re.compile(r"'(?<!\w.)[^'\n]{1,200}'(?!\w)")),
    ("", re.compile(rf"{_MONTH}\ [0-9]{{1,2}}(?![0-9]){_ORDINAL}(?:,?\ [0-9]{{4}})?")),
    ("", re.compile(rf"[0-9]+(?:[.,:/T+-][0-9]+)*Z?(?:{_ORDINAL}\.?\ (?:of\ )?{_MONTH}(?![a-z]))?")),
]


def strip_variables(text: str) -> str:
    """The text with numbers, dates, UUIDs, addresses and quoted strings made placeholders, and whitespace collapsed."""
    if _UUID_MIDDLE.search(text):
        text = _UUID.sub(PLACEHOLDER, text)
    for mark, pattern in _VARIABLES:
        if mark in text:
            text = pattern.sub(PLACEHOLDER, text)
    words = text.split()
    if "@" in text:
        words = [PLACEHOLDER if "@" in word else word for word in words]
    return " ".join(words)


# A program mostly sends the same system prompt again: 1 µs instead of 45. Bounded: 256 texts of 20,000 characters.
_strip_seen: Final = lru_cache(maxsize=256)(strip_variables)


def fingerprint(ask: Ask, *, teacher: str = "") -> str:
    """32 hex characters that two calls of one workload share.

    Of: the system text without its variable parts, tool names and schemas in any order, the response format, the
    asked-for model, and the `teacher`: who answers, where the dialect alone does not tell. Without a system prompt, the
    user's text counts by its opening line only (see `_opening`).
    """
    system = "\n".join(message.text for message in ask.messages if message.role == "system")
    constant = system if system.strip() else _opening(ask)
    parts = [
        _strip_seen(constant[:_MAX_SYSTEM_CHARS]),
        sorted((tool.name, tool.schema) for tool in ask.tools),
        ask.response_format,
        ask.model,
        *([teacher] if teacher else []),
    ]
    # A JSON array, not joined text: two different lists of parts can then never read the same.
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]


def _opening(ask: Ask) -> str:
    """What a program put before the query: the first line if more lines follow, or a phrase that ends in a colon."""
    text = next((message.text for message in ask.messages if message.role == "user"), "").strip()
    line, newline, _ = text.partition("\n")
    if newline:
        return line[:_MAX_OPENING_CHARS]
    phrase, colon, _ = line[:_MAX_OPENING_CHARS].partition(":")
    return phrase if colon and len(phrase.split()) >= _MIN_OPENING_WORDS else ""
