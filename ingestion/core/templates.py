"""Why the student reads less than the teacher: the constant part of a workload's messages, found by aligning calls.

What surrounds the query in every call teaches the student nothing; it is learnt once, checked on each call, and cut
off. A call that does not match the template is not the work the student was trained on.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from ingestion.core.calls import Ask, Message
from ingestion.core.fingerprint import strip_variables

MIN_ASKS = 20  # fewer would take an accident of the sample for a constant


class UnableToLearnTemplate(Exception):
    """The asks are too few, or none of them is one plain user turn."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """The constant part of a workload's messages: the system text, and what surrounds the query in the user's turn.

    `system` is verbatim where every ask of the sample had the same; else its form without variable parts, which an
    ask then has to match after the same stripping.
    """

    system: str = ""
    prefix: str = ""
    suffix: str = ""


def learn_template(asks: Sequence[Ask]) -> Template:
    """Align the asks of one workload. Raises UnableToLearnTemplate on fewer than 20 that are one plain user turn."""
    plain = [(system_text(ask), turn.text) for ask in asks if (turn := _only_turn(ask)) is not None]
    if len(plain) < MIN_ASKS:
        raise UnableToLearnTemplate(f"{len(plain)} single-turn asks of text, {MIN_ASKS} are needed")
    system = _constant_system([system for system, _ in plain])
    prefix, suffix = _surroundings({text for theirs, text in plain if _same_system(system, theirs)})
    return Template(system=system, prefix=prefix, suffix=suffix)


def extract_query(template: Template, ask: Ask) -> str | None:
    """The variable part of the ask, without outer whitespace; None where the template does not match.

    It does not match on more than one user turn, on an assistant's or tool's turn, on media, on another system prompt,
    on other surroundings, and on an empty query.
    """
    turn = _only_turn(ask)
    if turn is None or not _same_system(template.system, system_text(ask)):
        return None
    text, constant = turn.text, len(template.prefix) + len(template.suffix)
    if len(text) <= constant or not (text.startswith(template.prefix) and text.endswith(template.suffix)):
        return None
    return text[len(template.prefix) : len(text) - len(template.suffix)].strip() or None


def system_text(ask: Ask) -> str:
    """All of the ask's system prompts as one text."""
    return "\n".join(message.text for message in ask.messages if message.role == "system")


def _only_turn(ask: Ask) -> Message | None:
    turns = [message for message in ask.messages if message.role != "system"]
    if len(turns) != 1 or turns[0].role != "user" or any(message.has_media for message in ask.messages):
        return None
    return turns[0]


def _constant_system(systems: Sequence[str]) -> str:
    if len(set(systems)) == 1:
        return systems[0]
    return Counter(map(strip_variables, systems)).most_common(1)[0][0]


def _same_system(learnt: str, theirs: str) -> bool:
    return theirs == learnt or strip_variables(theirs) == learnt


def _surroundings(texts: set[str]) -> tuple[str, str]:
    """The prefix and suffix that all texts share and that do not overlap in any, cut where a word ends."""
    if len(texts) < 2:
        return "", ""  # one text repeated says nothing about what varies
    prefix = _shared_start(texts)
    prefix = prefix[: _after_last_space(prefix)]
    rest = _shared_start({text[len(prefix) :][::-1] for text in texts})
    return prefix, rest[: _after_last_space(rest)][::-1]


def _shared_start(texts: set[str]) -> str:
    first, last = min(texts), max(texts)  # what these two share, all in between share
    length = next((index for index, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:length]


def _after_last_space(text: str) -> int:
    return next((index + 1 for index in range(len(text) - 1, -1, -1) if text[index].isspace()), 0)
