"""Writes and reads messages of which each asks for one thing, wrapped in what people say around it.

`LabelGrammar` holds each label's phrases. A drawn message has a phrase of its label, sometimes a second one, or some
background that speaks of other labels' matters without asking for them; an ambiguous one has two labels' phrases.
Reading finds the phrases, and where two labels are found decides by the text's hash.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random

from demo.grammar.fillers import FILLERS, all_options
from demo.grammar.phrases import compile_finder, literal_words, load_phrases, write
from demo.grammar.sampling import AMBIGUOUS_SHARE, Sample, Workload, pick_by_text
from demo.grammar.spelling import Speller

_ASKS = re.compile(r"(where|when|what|which|who|how|why|is|are|can|could|has|do|does|was|would|will)\b", re.IGNORECASE)
BACKGROUND_SHARE = 0.07  # of messages, those with a sentence about other labels' matters
SLIP_SHARE = 0.12  # of messages, those with slips of the finger
INSISTENCE_SHARE = 0.55  # of messages, those that ask for the same thing twice in other words


class LabelGrammar:
    """Phrases from a file and weights per label; `nothing` answers a text that asks for no label."""

    def __init__(self, *, file: str, weights: Mapping[str, float], nothing: str) -> None:
        self._file = file
        self._labels, self._weights = list(weights), list(weights.values())
        self._nothing = nothing

    def draw(self, rng: Random) -> Sample:
        """A message and its label; ambiguous in a share of AMBIGUOUS_SHARE."""
        [label] = rng.choices(self._labels, self._weights)
        sentences = [self._write(label, rng)]
        ambiguous = rng.random() < AMBIGUOUS_SHARE
        if ambiguous:
            rival = rng.choice([other for other in self._labels if other != label])
            sentences.append(self._write(rival, rng))
        elif (more := rng.random()) < BACKGROUND_SHARE:
            sentences.insert(rng.randrange(2), self._write("(backgrounds)", rng))
        elif more < BACKGROUND_SHARE + INSISTENCE_SHARE:
            sentences.append(self._write(label, rng))
        query = self._roughen(self._wrap(sentences, rng), rng)
        return Sample(query, self.read(query) if ambiguous else label, ambiguous)

    def read(self, query: str) -> str:
        """The label that the message asks for, by its phrases alone."""
        found = self.labels_in(query)
        if not found:
            return self._nothing
        return found[0] if len(found) == 1 else found[pick_by_text(query, options=len(found))]

    def labels_in(self, text: str) -> list[str]:
        """Every label whose phrases occur in a text."""
        squashed = self._speller.squash(text)
        return [label for label, finder in self._finders.items() if finder.search(squashed)]

    def _write(self, section: str, rng: Random) -> str:
        return write(rng.choice(load_phrases(self._file)[section]), rng, fillers=FILLERS)

    def _wrap(self, sentences: Sequence[str], rng: Random) -> str:
        ended = [sentence + _draw_ending(sentence, rng) for sentence in sentences]
        if rng.random() < 0.8:
            ended = [sentence[0].upper() + sentence[1:] for sentence in ended]
        parts = [self._write("(openings)", rng), *ended, self._write("(closings)", rng)]
        return rng.choice((" ", " ", " ", "\n")).join(part for part in parts if part)

    def _roughen(self, text: str, rng: Random) -> str:
        for _ in range(rng.choice((1, 1, 2, 3)) if rng.random() < SLIP_SHARE else 0):
            text = self._speller.slip(text, rng)
        manner = rng.random()
        if manner < 0.15:
            return text.lower()
        if manner < 0.18:
            return text.upper()
        return text.replace("'", "").rstrip(".?") if manner < 0.28 else text

    @cached_property
    def _finders(self) -> dict[str, re.Pattern[str]]:
        sections = load_phrases(self._file)
        return {label: compile_finder(sections[label]) for label in self._labels}

    @cached_property
    def _speller(self) -> Speller:
        phrases = [phrase for section in load_phrases(self._file).values() for phrase in section]
        return Speller(literal_words([*phrases, *all_options()]))


def label_workload(
    *, name: str, model: str, system: str, template: str, weights: Mapping[str, float], nothing: str
) -> Workload:
    """A workload that is answered with one label, its phrases in the file of its name."""
    grammar = LabelGrammar(file=f"{name}.txt", weights=weights, nothing=nothing)
    return Workload(
        name=name,
        dialect="openai",
        model=model,
        system=system,
        template=template,
        draw=grammar.draw,
        read=grammar.read,
        max_tokens=16,
    )


def _draw_ending(sentence: str, rng: Random) -> str:
    return rng.choice(("?", "?", "?", ".", "")) if _ASKS.match(sentence) else rng.choice((".", ".", ".", "!", ""))
