"""What to call a workload that nobody has named: its prompt's first instruction, cut where a reader would."""

import re

from ingestion.core.fingerprint import PLACEHOLDER

MOST_WORDS = 7
FEWEST_WORDS = 2
# How a prompt begins before it says what is to be done.
_OPENING = re.compile(
    r"^(?:hi|hello|please|always|you are going to|you are asked to|you are (?:an?|the)|you(?:'re| are| will| should"
    r"| must| need to| have to)?|your (?:task|job|role|goal) is(?: to)?|act as(?: an?| the)?|i want you to)\s+",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"^(?:(?:helpful|useful|friendly|an?|ai|large|language|model|assistant|expert|chatbot)\b\s*)+$")
_SENTENCE_ENDS = re.compile(r"[.!?:;]+(?:\s|$)|\n(?=[\s#*\d-])|,\s")
_SETTING = re.compile(r"^(?:given|if|when|based on|using)\b", re.IGNORECASE)  # says what of, not what to do
_PREPOSITION = re.compile(
    r"about|against|as|at|by|during|for|from|in|into|of|on|onto|over|per|to|under|via|with", re.IGNORECASE
)
_DANGLING = re.compile(rf"{_PREPOSITION.pattern}|an?|and|or|the", re.IGNORECASE)
_WORD = re.compile(r"[^\W_][\w'’&/-]*")


def name_of_prompt(*texts: str) -> str:
    """A few words that name what the first telling sentence of these texts asks for, "" where none tells anything."""
    for text in texts:
        for sentence in _SENTENCE_ENDS.split(text.replace(PLACEHOLDER, " ")[:2000]):
            words = _WORD.findall(_strip_opening(sentence))
            if _tells(words):
                name = " ".join(_cut(words))[:100]
                return name[0].upper() + name[1:]
    return ""


def _tells(words: list[str]) -> bool:
    text = " ".join(words).lower()
    return len(words) >= FEWEST_WORDS and not _NOBODY.match(text) and not _SETTING.match(text)


def _strip_opening(sentence: str) -> str:
    stripped = sentence.strip()
    while stripped != (stripped := _OPENING.sub("", stripped, count=1)):
        pass
    return stripped


def _cut(words: list[str]) -> list[str]:
    """The first words, whole phrases only: what hangs on the last preposition goes if not all of it fits."""
    kept, rest = words[:MOST_WORDS], words[MOST_WORDS:]
    if rest and not _PREPOSITION.fullmatch(rest[0]):
        at = [place for place, word in enumerate(kept) if place >= FEWEST_WORDS and _PREPOSITION.fullmatch(word)]
        kept = kept[: at[-1]] if at else kept
    while len(kept) > FEWEST_WORDS and _DANGLING.fullmatch(kept[-1]):
        kept = kept[:-1]
    return kept
