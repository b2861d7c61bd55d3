"""Finds a tenant's workloads in its traffic: calls of one fingerprint are one task, named by what its prompt says."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import IntegrityError
from django.db.models import Count

from ingestion.core.agreement import canonical, infer_kind
from ingestion.core.calls import Arm, Kind
from ingestion.core.fingerprint import PLACEHOLDER
from ingestion.core.suitability import Figures, judge
from ingestion.core.templates import Template, UnableToLearnTemplate, extract_query, learn_template, system_text
from ingestion.models import Call, Fingerprint, Workload
from ingestion.payloads import Pair, readable_pairs
from tenants.events import record_event
from tenants.models import ProviderCredential
from tenants.provision import data_key_in_force
from tenants.scope import acting_for

MIN_CALLS = 40  # fewer of one shape are not yet a habit
SAMPLE = 200
FILLERS = frozenset(
    [
        "a",
        "an",
        "the",
        "you",
        "are",
        "is",
        "for",
        "of",
        "to",
        "and",
        "or",
        "in",
        "on",
        "with",
        "by",
        "as",
        "at",
        "be",
        "we",
        "our",
        "your",
        "from",
        "into",
        "that",
        "this",
        "it",
        "its",
        "who",
        "what",
        "will",
        "must",
        "only",
        "one",
        "exactly",
        "read",
        "given",
        "each",
        "following",
        "please",
        "act",
        "assistant",
        "helpful",
        "expert",
        "task",
        "company",
        "messages",
    ]
)


def discover_workloads(tenant_id: UUID, *, now: datetime) -> int:
    """Turn each fingerprint that became a habit into a workload, claim its calls, refresh all verdicts.

    Gives how many workloads are new. Safe to run twice, also at once: one workload per fingerprint is a constraint.
    """
    with acting_for(tenant_id):
        _claim_known()
        fresh = list(
            Call.objects.filter(workload_id=None, status=200, complete=True)
            .exclude(fingerprint="")
            .values("fingerprint")
            .annotate(calls=Count("id"))
            .filter(calls__gte=MIN_CALLS)
            .values_list("fingerprint", flat=True)
        )
    found = sum(_found(tenant_id, digest, now) for digest in fresh)
    _refresh(tenant_id, now)
    return found


def _claim_known() -> None:
    """Give calls that came before their workload was known to it."""
    for digest, workload_id in Fingerprint.objects.values_list("digest", "workload_id"):
        Call.objects.filter(fingerprint=digest, workload_id=None).update(workload_id=workload_id)


def _found(tenant_id: UUID, digest: str, now: datetime) -> bool:
    try:
        with acting_for(tenant_id):
            return _make_workload(digest, now)
    except IntegrityError:  # another worker found the same habit first
        return False


def _make_workload(digest: str, now: datetime) -> bool:
    calls = list(Call.objects.filter(fingerprint=digest, workload_id=None, status=200).order_by("-at")[:SAMPLE])
    pairs = list(readable_pairs(calls, data_key_in_force()))
    if len(pairs) < MIN_CALLS:
        return False
    kind = infer_kind([pair.answer for pair in pairs])
    name = _name_of(pairs[0], kind)
    workload = Workload.objects.create(
        slug=_free_slug(name),
        name=name,
        kind=kind,
        dialect=calls[0].dialect,
        asked_model=calls[0].asked_model,
        template=msgspec.to_builtins(_learn(pairs)),
        found_at=now,
        looked_at=now,
    )
    Fingerprint.objects.create(digest=digest, workload=workload)
    Call.objects.filter(fingerprint=digest, workload_id=None).update(workload_id=workload.id)
    record_event("workload.found", now=now, subject_id=workload.id, workload_kind=str(kind), calls=len(calls))
    return True


def _learn(pairs: Sequence[Pair]) -> Template:
    try:
        return learn_template([pair.ask for pair in pairs])
    except UnableToLearnTemplate:
        return Template()


def _refresh(tenant_id: UUID, now: datetime) -> None:
    with acting_for(tenant_id):
        for workload in Workload.objects.all():
            _refresh_one(workload, now)


def _refresh_one(workload: Workload, now: datetime) -> None:
    answered = Call.objects.filter(workload_id=workload.id, status=200, complete=True).exclude(arm=Arm.STUDENT)
    pairs = list(readable_pairs(list(answered.order_by("-at")[:SAMPLE]), data_key_in_force()))
    if not pairs:
        return
    template = msgspec.convert(workload.template, Template)
    kind = Kind(workload.kind)
    answers = {answer for pair in pairs if (answer := canonical(kind, pair.answer)) is not None}
    figures = Figures(
        kind=kind,
        pairs=answered.count(),
        sampled=len(pairs),
        on_template=sum(extract_query(template, pair.ask) is not None for pair in pairs) / len(pairs),
        distinct_answers=len(answers),
        stances=dict(ProviderCredential.objects.filter(provider=workload.dialect).values_list("provider", "stance")),
    )
    verdict = judge(figures, min_pairs=settings.MIN_PAIRS)
    Workload.objects.filter(id=workload.id).update(
        verdict=verdict.verdict,
        verdict_reasons=list(verdict.reasons),
        figures={
            "pairs": figures.pairs,
            "sampled": figures.sampled,
            "on_template": figures.on_template,
            "distinct_answers": figures.distinct_answers,
        },
        looked_at=now,
    )


def _name_of(pair: Pair, kind: Kind) -> str:
    """The prompt's most telling words, in its own order; the asked-for model where there is no prompt."""
    text = system_text(pair.ask) or pair.ask.messages[0].text.split("\n", 1)[0]
    words = re.findall(r"[a-z][a-z-]{2,}", text.replace(PLACEHOLDER, " ").lower())
    counts = Counter(word for word in words if word not in FILLERS)
    telling = {word for word, _ in counts.most_common(4)}
    ordered = [word for word in dict.fromkeys(words) if word in telling]
    return (" ".join(ordered) or f"{kind} by {pair.ask.model}")[:100].capitalize()


def _free_slug(name: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "workload"
    taken = set(Workload.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    return next(slug for slug in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if slug not in taken)
