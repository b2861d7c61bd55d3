"""What a teacher's terms let its answers be used for, and what traffic looks like that is after something else.

The terms themselves are facts a person enters, per provider and model, with the evidence beside them; here is only
what follows from them.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

_MIN_CALLS = 1000  # fewer say nothing about a pattern
_BROAD = 0.5  # distinct fingerprints per call: a workload asks the same kind of thing again and again
_UNREPEATED = 0.98  # share of queries with no near duplicate; real traffic repeats itself
_FRESH = 0.5  # share of calls under keys or subjects younger than a week
_ENGINEERED = 0.5  # share of queries that ask for reasoning, for variants, or for the model's own instructions
_ENGINEERED_QUERY = re.compile(
    r"\b(?:step[ -]by[ -]step|chain of thought|think (?:aloud|out loud|through)"
    r"|(?:explain|show) your (?:reasoning|thinking)"
    r"|rephrase|paraphrase|(?:different|other|more) ways|variations? of"
    r"|(?:system|hidden|initial) prompt|(?:your|previous|above) instructions)\b",
    re.IGNORECASE,
)
_ENOUGH = 3  # how many of the four signs make a suspicion


class Stance(StrEnum):
    """What the terms in force say about training a model on the teacher's answers."""

    ALLOWED = "allowed"  # an open-weight teacher, or the provider's own distillation terms
    INTERNAL_ONLY = "internal_only"  # a narrow student for the tenant itself, never redistributed
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class TrafficSigns:
    """A workload's traffic over a week, as counts and shares in [0, 1]."""

    calls: int
    distinct_fingerprints: int
    unrepeated_share: float
    fresh_share: float
    engineered_share: float


def may_train(stance: Stance) -> bool:
    """Whether a pair under this stance may become an example of the tenant's own student."""
    return stance is not Stance.FORBIDDEN


def is_engineered(query: str) -> bool:
    """Whether a query asks for the model's reasoning, for variants of an answer, or for the model's instructions."""
    return _ENGINEERED_QUERY.search(query) is not None


def looks_like_extraction(signals: TrafficSigns) -> str | None:
    """Why the traffic looks like copying a model's capabilities at large instead of running a workload; else None.

    Three of four signs are needed, since each alone has innocent causes.
    """
    if signals.calls < _MIN_CALLS:
        return None
    signs = {
        "broad": signals.distinct_fingerprints >= _BROAD * signals.calls,
        "non-repeating": signals.unrepeated_share >= _UNREPEATED,
        "from fresh accounts": signals.fresh_share >= _FRESH,
        "engineered": signals.engineered_share >= _ENGINEERED,
    }
    seen = [name for name, is_there in signs.items() if is_there]
    return ", ".join(seen) if len(seen) >= _ENOUGH else None
