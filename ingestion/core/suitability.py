"""Whether a workload is worth a student, said in words a person can act on before anything is spent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingestion.core.calls import Kind

MIN_TEMPLATE_SHARE = 0.5
MAX_LABELS = 200
MOST_STATEFUL = 0.5  # of the calls: with more, a student would hardly ever be asked


@dataclass(frozen=True, slots=True)
class Figures:
    """What discovery measured on a sample of a workload's calls."""

    kind: Kind
    pairs: int  # calls of it so far that got an answer
    sampled: int
    on_template: float  # share of the sample whose query can be told from the constant part
    distinct_answers: int  # in the sample
    stances: Mapping[str, str] = field(default_factory=dict)  # credential's name → stance on its provider's terms
    stateful: float = 0.0  # share of the sample whose answer the provider is to keep
    excess: str = ""  # what of the answers' schema is more than a student can be held to
    suspicion: str = ""  # why the traffic looks like copying a model at large


@dataclass(frozen=True, slots=True)
class Suitability:
    """`suitable`, `not_yet` or `unsuitable`, with the reasons."""

    verdict: str
    reasons: tuple[str, ...]


def judge(figures: Figures, *, min_pairs: int) -> Suitability:
    """The verdict on a workload. Reasons are whole sentences; an unsuitable one outweighs a missing number of pairs."""
    against = [
        reason
        for reason in (_terms(figures), _purpose(figures), _kind(figures), _shape(figures), _state(figures))
        if reason
    ]
    if against:
        return Suitability("unsuitable", tuple(against))
    if figures.pairs < min_pairs:
        missing = min_pairs - figures.pairs
        return Suitability("not_yet", (f"{missing} more answered calls are needed before a student is trained.",))
    return Suitability("suitable", (_praise(figures),))


def _terms(figures: Figures) -> str | None:
    forbidden = sorted(name for name, stance in figures.stances.items() if stance == "forbidden")
    if forbidden:
        return f"The terms stated for {', '.join(forbidden)} forbid training on its answers (settings, providers)."
    return None


def _purpose(figures: Figures) -> str | None:
    if figures.suspicion:
        return f"Its calls look like copying a model at large ({figures.suspicion}), which no provider's terms allow."
    return None


def _kind(figures: Figures) -> str | None:
    if figures.kind is Kind.TEXT:
        return "Answers are free text, which needs a judge model to compare; labels, JSON and tool calls do not."
    if figures.kind is Kind.LABEL and figures.distinct_answers > MAX_LABELS:
        return f"More than {MAX_LABELS} different labels in its last {figures.sampled} calls."
    if figures.excess:
        return f"Answers are as good as free text: {figures.excess}."
    return None


def _shape(figures: Figures) -> str | None:
    if figures.on_template < MIN_TEMPLATE_SHARE:
        share = f"{figures.on_template:.0%}"
        return f"Only {share} of its calls are one turn on a constant template; conversations stay with the teacher."
    return None


def _state(figures: Figures) -> str | None:
    if figures.stateful > MOST_STATEFUL:
        share = f"{figures.stateful:.0%}"
        return (
            f"{share} of its calls have the provider keep the answer, which a student's could not be asked for again: "
            "send `store: false` where nobody does."
        )
    return None


def _praise(figures: Figures) -> str:
    if figures.kind is Kind.LABEL:
        return f"{figures.distinct_answers} labels over {figures.pairs} answered calls on one template."
    return f"{figures.pairs} answered calls of one form on one template."
