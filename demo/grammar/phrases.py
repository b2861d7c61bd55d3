"""Gives a phrase two readings, to write it and to find it, so that the expert needs no copy of the grammar.

A phrase is text with choices in brackets, `[can you|could you]`, which may be empty or nested, and slots in braces,
`{shipment}`. `write` draws one wording; `compile_finder` turns the same phrases into a pattern over squashed text
(letters and digits only), where case, spacing and punctuation no longer matter.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import count
from random import Random

Filler = Callable[[Random], str]

SLOT_PATTERN = ".{1,60}?"
_PIECES = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")
_TOKENS = re.compile(r"[^\W_]+")
_SPACES = re.compile(r" {2,}")


class UnableToReadPhrase(Exception):
    """A phrase's brackets do not match."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a filler."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Wordings of which one is drawn."""

    options: tuple["Sequence", ...]


Sequence = tuple["str | Slot | Choice", ...]


def tokens(text: str) -> list[str]:
    """The words and numbers of a text: NFKC, casefolded, apostrophes dropped."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    return _TOKENS.findall(folded)


def squash(text: str) -> str:
    """A text's letters and digits only, the form in which phrases are found."""
    return "".join(tokens(text))


@cache
def load_phrases(file: str) -> Mapping[str, tuple[str, ...]]:
    r"""The phrases of a text file beside this one, by section, in order.

    A section starts with `== name`; a line is a phrase, `-` stands for the empty one, `\n` for a line break.
    """
    sections: dict[str, list[str]] = {}
    name = ""
    for line in files(__package__).joinpath(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            name = line.removeprefix("== ")
            sections[name] = []
        elif line:
            sections[name].append("" if line == "-" else line.replace("\\n", "\n"))
    return {name: tuple(phrases) for name, phrases in sections.items()}


@cache
def parse_phrase(phrase: str) -> Sequence:
    """The tree of a phrase. Raises UnableToReadPhrase where brackets do not match."""
    pieces = _PIECES.findall(phrase)
    options, at = _parse_options(pieces, 0)
    if at != len(pieces) or len(options) != 1:
        raise UnableToReadPhrase(phrase)
    return options[0]


def write(phrase: str, rng: Random, *, fillers: Mapping[str, Filler]) -> str:
    """One wording of a phrase, with its slots filled."""
    written = _write(parse_phrase(phrase), rng, fillers)
    return _SPACES.sub(" ", written).strip()


def compile_finder(phrases: Iterable[str]) -> re.Pattern[str]:
    """A pattern over squashed text that finds any wording of any of the phrases."""
    return re.compile("|".join(f"(?:{_pattern(parse_phrase(phrase))})" for phrase in phrases))


def compile_reader(phrase: str, *, slots: Mapping[str, str]) -> re.Pattern[str]:
    """A pattern over plain text that finds a phrase in any case and line layout, for `find_slots`.

    `slots` gives each slot's own pattern.
    """
    return re.compile(_reader(parse_phrase(phrase), slots, count()), re.IGNORECASE)


def find_slots(reader: re.Pattern[str], text: str) -> dict[str, str] | None:
    """What the phrase's slots hold in a text, None where the phrase does not occur."""
    match = reader.search(text)
    if match is None:
        return None
    return {name.rpartition("_")[0]: value for name, value in match.groupdict().items() if value is not None}


def literal_words(phrases: Iterable[str]) -> set[str]:
    """All words that the phrases themselves spell, slots left out."""
    words: set[str] = set()
    for phrase in phrases:
        words.update(tokens(re.sub(r"\{\w+\}|[\[\]|]", " ", phrase)))
    return words


def _parse_options(pieces: list[str], at: int) -> tuple[tuple[Sequence, ...], int]:
    options: list[Sequence] = []
    parts: list[str | Slot | Choice] = []
    while at < len(pieces) and pieces[at] != "]":
        piece = pieces[at]
        at += 1
        if piece == "|":
            options.append(tuple(parts))
            parts = []
        elif piece == "[":
            inner, at = _parse_options(pieces, at)
            parts.append(Choice(inner))
            at += 1  # the closing bracket
        else:
            parts.append(Slot(piece[1:-1]) if piece.startswith("{") else piece)
    return (*options, tuple(parts)), at


def _write(sequence: Sequence, rng: Random, fillers: Mapping[str, Filler]) -> str:
    written = ""
    for part in sequence:
        if isinstance(part, str):
            written += part
        elif isinstance(part, Slot):
            written += fillers[part.name](rng)
        else:
            written += _write(rng.choice(part.options), rng, fillers)
    return written


def _pattern(sequence: Sequence) -> str:
    pattern = ""
    for part in sequence:
        if isinstance(part, str):
            pattern += squash(part)
        elif isinstance(part, Slot):
            pattern += SLOT_PATTERN
        else:
            pattern += "(?:" + "|".join(_pattern(option) for option in part.options) + ")"
    return pattern


def _reader(sequence: Sequence, slots: Mapping[str, str], numbers: Iterator[int]) -> str:
    pattern = ""
    for part in sequence:
        if isinstance(part, str):
            pattern += r"\s*".join(re.escape(piece) for piece in re.split(r"\s+", part))
        elif isinstance(part, Slot):
            pattern += f"(?P<{part.name}_{next(numbers)}>{slots[part.name]})"
        else:
            pattern += "(?:" + "|".join(_reader(option, slots, numbers) for option in part.options) + ")"
    return pattern
