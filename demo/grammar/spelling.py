"""Makes and undoes the typing slips of people in a hurry, so that the expert reads what was meant.

A slip is one edit (two letters swapped, one lost, one doubled) of a long word, and only one that `Speller.correct`
undoes: people's slips are readable too. The look-up is by shared deletions, as in SymSpell
(github.com/wolfgarbe/SymSpell).
"""

from collections.abc import Iterable
from random import Random

from demo.grammar.phrases import tokens

_SHORTEST = 5


class Speller:
    """A vocabulary and its one-letter deletions."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._by_deletion: dict[str, str] = {}
        for word in sorted(self._words):
            if len(word) >= _SHORTEST:
                for form in (word, *_deletions(word)):
                    self._by_deletion.setdefault(form, word)

    def correct(self, token: str) -> str:
        """The vocabulary's word at most one slip away, or the token itself."""
        if token in self._words or len(token) < _SHORTEST - 1 or not token.isalpha():
            return token
        for form in (token, *_deletions(token)):
            if (word := self._by_deletion.get(form)) is not None:
                return word
        return token

    def squash(self, text: str) -> str:
        """A text's corrected words without spaces, the form in which phrases are found."""
        return "".join(self.correct(token) for token in tokens(text))

    def slip(self, text: str, rng: Random) -> str:
        """The text with one word mistyped, or the text itself where the drawn word cannot be mistyped readably."""
        words = text.split(" ")
        at = rng.randrange(len(words))
        word = words[at]
        if len(word) < _SHORTEST or not word.isalpha():
            return text
        mistyped = _mistype(word, rng)
        if mistyped.casefold() in self._words or self.correct(mistyped.casefold()) != self.correct(word.casefold()):
            return text
        words[at] = mistyped
        return " ".join(words)


def _mistype(word: str, rng: Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == 1:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at] + word[at:]


def _deletions(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at in range(len(word))]
