"""Counts tokens by length, for answers that nobody counted; a record that holds such a number says so.

Tokens are nearly a straight line over characters, where one program asks again and again: what a provider adds to each
call, and how many characters it makes a token of for these words. The line is fitted by least squares to calls whose
tokens were told.
"""

from dataclasses import dataclass, field
from typing import Final

from ingestion.core.calls import Answer, Ask, Usage

CHARS_PER_TOKEN: Final = 4
FEWEST: Final = 20  # calls before a line says anything
MANY: Final = 200  # calls of a workload; of those after them one of EACH is learnt from
EACH: Final = 8
ENOUGH: Final = 1000  # then what was learnt first counts half
MOST_WORKLOADS: Final = 1000  # of a tenant, whose fits are remembered; the one longest unused goes first


@dataclass(slots=True)
class Fit:
    """A line of tokens over characters, by the sums of least squares."""

    count: int = 0
    chars: int = 0
    tokens: int = 0
    chars_squared: int = 0
    product: int = 0

    def learn(self, chars: int, tokens: int) -> None:
        """One more call whose tokens were told."""
        self.count += 1
        self.chars += chars
        self.tokens += tokens
        self.chars_squared += chars * chars
        self.product += chars * tokens
        if self.count >= ENOUGH:
            self.count //= 2
            self.chars //= 2
            self.tokens //= 2
            self.chars_squared //= 2
            self.product //= 2

    def guess(self, chars: int) -> int:
        """Tokens of so many characters: never fewer than a sixteenth of them, nor more than twice as many and a few."""
        if self.count < FEWEST:
            return -(-chars // CHARS_PER_TOKEN)
        spread = self.count * self.chars_squared - self.chars * self.chars
        slope = (self.count * self.product - self.chars * self.tokens) / spread if spread > 0 else 0.0
        level = (self.tokens - slope * self.chars) / self.count
        return min(max(round(level + slope * chars), chars // 16), 2 * chars + 64)


@dataclass(slots=True)
class Fits:
    """One workload's: of what is read, and of what is written."""

    read: Fit = field(default_factory=Fit)
    written: Fit = field(default_factory=Fit)
    seen: int = 0

    def is_to_skip(self) -> bool:
        """One more call was seen: whether it is not worth learning from, because many were."""
        self.seen += 1
        return self.seen > MANY and self.seen % EACH != 0


class Lengths:
    """What is known of each workload of each tenant; no tenant's calls teach another's, nor make it forgotten."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Fits]] = {}

    def learn(self, tenant_id: str, fingerprint: str, ask: Ask, answer: Answer, usage: Usage) -> None:
        """A call whose provider told what it used."""
        if not fingerprint:
            return
        known = self._known.setdefault(tenant_id, {})
        fits = known.get(fingerprint)
        if fits is None:
            if len(known) >= MOST_WORKLOADS:
                del known[next(iter(known))]
            fits = known[fingerprint] = Fits()
        elif fits.is_to_skip():
            return
        else:
            known[fingerprint] = known.pop(fingerprint)
        if not any(message.has_media for message in ask.messages):
            fits.read.learn(read_chars(ask), usage.input_tokens)
        if ask.n == 1:  # of several answers only the first is read
            fits.written.learn(written_chars(answer), usage.output_tokens)

    def estimate(self, tenant_id: str, fingerprint: str, ask: Ask, answer: Answer | None) -> Usage:
        """Tokens of the ask and, if there is one, of the answer."""
        return _guess(self._known.get(tenant_id, {}).get(fingerprint, UNKNOWN), ask, answer)


UNKNOWN: Final = Fits()


def estimate_usage(ask: Ask, answer: Answer | None) -> Usage:
    """By a quarter of the characters, where nothing is known of the workload."""
    return _guess(UNKNOWN, ask, answer)


def _guess(fits: Fits, ask: Ask, answer: Answer | None) -> Usage:
    written = written_chars(answer) if answer is not None else 0
    return Usage(
        input_tokens=max(1, fits.read.guess(read_chars(ask))),
        output_tokens=fits.written.guess(written) if written else 0,
    )


def read_chars(ask: Ask) -> int:
    """Characters of all messages."""
    return sum([len(message.text) for message in ask.messages])


def written_chars(answer: Answer) -> int:
    """Characters of the text and of tool calls."""
    return len(answer.text) + sum([len(call.name) + len(call.arguments) for call in answer.tool_calls])
