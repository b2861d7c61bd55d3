"""Leaves a provider that cannot be reached alone for a while, so that its callers hear so at once instead of waiting.

A circuit breaker (Nygard, Release It!, 2007): closed, every call passes; after FAILURES in a row it opens and refuses
for a time; then one call passes as a probe, whose end closes it or opens it for twice as long. Only a provider that
gives no answer at all counts as failing: whatever it answers, errors included, is the caller's to read.
"""

from dataclasses import dataclass
from typing import Final

FAILURES: Final = 5  # in a row
FIRST_PAUSE: Final = 2.0  # seconds
LONGEST_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one provider. `opened`: times since it last answered; `until`: no call passes before this."""

    failures: int = 0
    opened: int = 0
    until: float = 0.0

    @property
    def pause(self) -> float:
        """Seconds between two probes; 0 while closed."""
        return min(FIRST_PAUSE * 2.0 ** min(self.opened - 1, 10), LONGEST_PAUSE) if self.opened else 0.0


CLOSED: Final = Breaker()


def seconds_to_wait(breaker: Breaker, *, now: float) -> float:
    """How long calls are refused from now on; 0 where one may pass."""
    return max(0.0, breaker.until - now)


def after_passing(breaker: Breaker, *, now: float) -> Breaker:
    """A call was let through. If it is a probe, the next one waits as long again, however this one ends."""
    return Breaker(breaker.failures, breaker.opened, now + breaker.pause) if breaker.opened else breaker


def after_failure(breaker: Breaker, *, opened: int, now: float) -> Breaker:
    """A call got no answer; `opened` is the breaker's when it passed.

    Many calls may be on their way when a provider goes: those that passed before the breaker opened say nothing new.
    """
    if opened != breaker.opened:
        return breaker
    failures = breaker.failures + 1
    if not opened and failures < FAILURES:
        return Breaker(failures)
    wider = Breaker(failures, opened + 1)
    return Breaker(failures, opened + 1, now + wider.pause)
