"""How long a student may take: learnt from how long it takes, so that one in trouble costs its callers little.

A deadline is some times the 99th percentile of the adapter's last drafts, between a floor and the longest that was set.
A draft that was late counts as one that took its whole deadline. Once more than one in a hundred are late, that
percentile is the deadline itself, and the next one is longer: an engine that has become slower gets its time back in a
few steps, and at the worst the longest.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from math import ceil
from typing import Final

SAMPLES: Final = 256  # drafts that are remembered, the last ones
FEWEST: Final = 50  # drafts before they say anything, and between two looks at them
LATE: Final = 4  # late ones, after which they are looked at again at once
TIMES: Final = 3.0  # the 99th percentile
FLOOR: Final = 0.1  # seconds: below it, what a busy machine does by chance would count
MOST_ADAPTERS: Final = 4096  # that are remembered; the one longest unused goes first


@dataclass(slots=True)
class Pace:
    """One adapter's drafts, in seconds."""

    deadline: float
    drafts: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    since: int = 0  # drafts since the deadline was set
    late: int = 0  # late ones of them

    def learn(self, seconds: float, *, late: bool, longest: float) -> None:
        """One more draft."""
        self.drafts.append(seconds)
        self.since += 1
        self.late += late
        if self.since >= FEWEST or (self.late >= LATE and len(self.drafts) >= FEWEST):
            self.deadline = deadline_after(self.drafts, longest=longest)
            self.since = self.late = 0


class Deadlines:
    """What is known of each adapter; one adapter is one workload's of one tenant, and a new one begins afresh."""

    def __init__(self, longest: float) -> None:
        """`longest` is seconds: the deadline of an adapter of which little is known, and no deadline is longer."""
        self._longest = longest
        self._paces: dict[str, Pace] = {}

    def of(self, adapter: str) -> float:
        """Seconds for its next draft."""
        pace = self._paces.get(adapter)
        return self._longest if pace is None else pace.deadline

    def made(self, adapter: str, seconds: float) -> None:
        """It made a draft in so many seconds."""
        self._pace(adapter).learn(seconds, late=False, longest=self._longest)

    def missed(self, adapter: str, deadline: float) -> None:
        """It made none within this deadline, in seconds."""
        self._pace(adapter).learn(deadline, late=True, longest=self._longest)

    def _pace(self, adapter: str) -> Pace:
        pace = self._paces.pop(adapter, None)
        if pace is None:
            if len(self._paces) >= MOST_ADAPTERS:
                del self._paces[next(iter(self._paces))]
            pace = Pace(self._longest)
        self._paces[adapter] = pace
        return pace


def deadline_after(drafts: Collection[float], *, longest: float) -> float:
    """The deadline, in seconds, after these drafts, of which there is at least one."""
    ranked = sorted(drafts)
    usual = ranked[ceil(0.99 * len(ranked)) - 1]
    return min(max(TIMES * usual, FLOOR), longest)
