"""Finds a tenant's workloads in its traffic: calls of one fingerprint are one task, named by what its prompt says."""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import DatabaseError, IntegrityError
from django.db.models import Count, Q

from ingestion.core.agreement import answer_schema, canonical, infer_kind
from ingestion.core.answer_schema import find_excess
from ingestion.core.calls import Dialect, Kind
from ingestion.core.dedupe import cluster_near_duplicates
from ingestion.core.naming import name_of_prompt
from ingestion.core.reading import is_storable
from ingestion.core.suitability import Figures, judge
from ingestion.core.templates import Template, UnableToLearnTemplate, extract_query, learn_template
from ingestion.core.terms import Stance, TrafficSigns, is_engineered, looks_like_extraction
from ingestion.curate import LONGEST_QUERY
from ingestion.models import Call, Fingerprint, Workload
from ingestion.payloads import Pair, readable_pairs
from tenants.events import record_event
from tenants.models import ApiKey, ProviderCredential
from tenants.provision import data_key_in_force
from tenants.scope import acting_for

log = logging.getLogger(__name__)

MIN_CALLS = 40  # fewer of one shape are not yet a habit
SAMPLE = 200  # newest calls that name a workload, its kind and its template
FORGOTTEN = "a key that has been forgotten"  # whose calls no stance lets in any more
JUDGED = 1000  # newest calls that the verdict is on: more than there may be labels, many times over
COMPARED = 200  # of their queries, how many are compared with each other
MOST_TEXT = 16_000_000  # characters of answers held at once
MOST_WORKLOADS = 500  # of a tenant
MOST_BYTES = 64_000  # of a body that a workload is named and templated by
GROWN = 1.02  # times as many answered calls as at the last look
STALE = timedelta(hours=1)
WEEK = timedelta(days=7)


def discover_workloads(tenant_id: UUID, *, now: datetime) -> int:
    """Turn each fingerprint that became a habit into a workload, claim its calls, refresh all verdicts.

    Gives how many workloads are new. Safe to run twice, also at once: one workload per fingerprint is a constraint.
    """
    with acting_for(tenant_id):
        _claim_known()
        fresh = list(
            Call.objects.filter(workload_id=None, status=200, complete=True, failovers=0)
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
    except DatabaseError as error:  # whose message may hold words of the prompt
        log.warning("a workload could not be made: %s", type(error).__name__)
        return False


def _make_workload(digest: str, now: datetime) -> bool:
    own = Call.objects.filter(fingerprint=digest, workload_id=None, status=200, failovers=0)  # its own teacher's
    calls = list(own.order_by("-at")[:SAMPLE])
    readable = readable_pairs(calls, data_key_in_force())
    pairs = [
        replace(pair, ask=msgspec.structs.replace(pair.ask, raw=b""))
        for pair in readable
        if _is_handy(pair) and not pair.ask.tied
    ]
    if len(pairs) < MIN_CALLS or Workload.objects.count() >= MOST_WORKLOADS:
        return False
    kind, template = infer_kind([pair.answer for pair in pairs]), _learn(pairs)
    name = name_of_prompt(template.system, template.prefix) or f"{kind} by {pairs[0].ask.model}"[:100].capitalize()
    workload = Workload.objects.create(
        slug=_free_slug(name),
        name=name,
        kind=kind,
        dialect=calls[0].dialect,
        asked_model=calls[0].asked_model,
        template=msgspec.to_builtins(template),
        found_at=now,
        looked_at=now,
    )
    Fingerprint.objects.create(digest=digest, workload=workload)
    Call.objects.filter(fingerprint=digest, workload_id=None).update(workload_id=workload.id)
    record_event("workload.found", now=now, subject_id=workload.id, workload_kind=str(kind), calls=len(calls))
    return True


def _is_handy(pair: Pair) -> bool:
    """Hundreds are held at once; what is longer is no student's work anyway."""
    return len(pair.ask.raw) <= MOST_BYTES and len(pair.answer.text or "") <= MOST_BYTES


def _learn(pairs: Sequence[Pair]) -> Template:
    try:
        template = learn_template([pair.ask for pair in pairs])
    except UnableToLearnTemplate:
        return Template()
    storable = all(map(is_storable, (template.system, template.prefix, template.suffix)))
    return template if storable else Template()


def _refresh(tenant_id: UUID, now: datetime) -> None:
    """Each verdict stands once it is found: a look that is cut short has not been in vain."""
    with acting_for(tenant_id):
        longest_ago = list(Workload.objects.order_by("looked_at").values_list("id", flat=True))
    for workload_id in longest_ago:
        with acting_for(tenant_id):
            _refresh_one(Workload.objects.get(id=workload_id), now)


def _stances(workload: Workload) -> dict[str, str]:
    """By the name of each credential that its calls went under; before any call named one, of all that could be."""
    lately = Call.answered_for(workload.id).order_by("-at").values_list("credential_id", flat=True)[:JUDGED]
    used = {one for one in lately if one is not None}
    if not used:
        able = ProviderCredential.objects.filter(provider=Dialect(workload.dialect).provider)
        return dict(able.values_list("name", "stance"))
    known = list(ProviderCredential.objects.filter(id__in=used).values_list("name", "stance"))
    return dict(known if known else [(FORGOTTEN, Stance.FORBIDDEN.value)])


def _is_worth_a_look(workload: Workload, pairs: int, now: datetime) -> bool:
    """Opening a thousand bodies takes seconds, and a verdict moves with growth, erasure, terms and time alone."""
    known = int(workload.figures.get("pairs", 0))
    if pairs < known or pairs >= known * GROWN or known < settings.MIN_PAIRS <= pairs:
        return True
    terms_moved = ProviderCredential.objects.filter(stance_at__gt=workload.looked_at).exists()
    return terms_moved or now - workload.looked_at >= STALE


def _refresh_one(workload: Workload, now: datetime) -> None:
    answered = Call.answered_for(workload.id)
    pairs = answered.count()
    if not _is_worth_a_look(workload, pairs, now):
        return
    newest = list(answered.order_by("-at")[:JUDGED])
    seen = _look_at(workload, newest)
    if not seen.sampled:
        return
    figures = Figures(
        kind=Kind(workload.kind),
        pairs=pairs,
        sampled=seen.sampled,
        on_template=len(seen.queries) / seen.sampled,
        stateful=seen.stateful / seen.sampled,
        distinct_answers=len(set(seen.answers)),
        stances=_stances(workload),
        excess=find_excess(answer_schema(Kind(workload.kind), seen.answers)),
        suspicion=_suspect(workload, seen.queries, now) or "",
    )
    verdict = judge(figures, min_pairs=settings.MIN_PAIRS)
    Workload.objects.filter(id=workload.id).update(
        verdict=verdict.verdict,
        verdict_reasons=list(verdict.reasons),
        figures={
            **{name: getattr(figures, name) for name in ("pairs", "sampled", "on_template", "distinct_answers")},
            "p99_output_tokens": _p99([call.output_tokens for call in newest]),
        },
        looked_at=now,
    )
    # What a last try of a curation found is no reason to wait for growth where its rows are gone or the verdict moved.
    if verdict.verdict != workload.verdict or pairs < int(workload.figures.get("pairs", 0)):
        Workload.objects.filter(id=workload.id).update(curate_from=0)


def _p99(tokens: list[int]) -> int:
    """What 99 of 100 answers take at most: a limit sets so much aside for one."""
    return sorted(tokens)[max(0, math.ceil(len(tokens) * 0.99) - 1)] if tokens else 0


@dataclass(slots=True)
class _Seen:
    """What the bodies of a workload's newest calls say, without the bodies: of long ones their beginnings, and so much
    text in all."""

    sampled: int = 0
    stateful: int = 0
    room: int = MOST_TEXT
    queries: list[str] = field(default_factory=list, repr=False)
    answers: list[str] = field(default_factory=list, repr=False)


def _look_at(workload: Workload, calls: list[Call]) -> _Seen:
    seen, template, kind = _Seen(), msgspec.convert(workload.template, Template), Kind(workload.kind)
    for pair in readable_pairs(calls, data_key_in_force()):
        seen.sampled += 1
        seen.stateful += pair.ask.stateful
        if pair.ask.tied:
            continue
        if (query := extract_query(template, pair.ask)) is not None:
            seen.queries.append(query[:LONGEST_QUERY])
        if (answer := canonical(kind, pair.answer)) is not None and len(answer) <= seen.room:
            seen.answers.append(answer)
            seen.room -= len(answer)
    return seen


def _suspect(workload: Workload, queries: Sequence[str], now: datetime) -> str | None:
    """Why the workload's last week looks like copying a model at large; None if it does not."""
    week = Call.objects.filter(workload_id=workload.id, at__gt=now - WEEK)
    fresh = ApiKey.objects.filter(created_at__gt=now - WEEK).values("id")
    counted = week.aggregate(
        calls=Count("id"),
        shapes=Count("fingerprint", distinct=True),
        fresh=Count("id", filter=Q(key_id__in=fresh)),
    )
    signs = TrafficSigns(
        calls=counted["calls"],
        distinct_fingerprints=counted["shapes"],
        unrepeated_share=1.0,  # measured below, where it decides: it takes the longest
        fresh_share=counted["fresh"] / max(1, counted["calls"]),
        engineered_share=sum(map(is_engineered, queries)) / max(1, len(queries)),
    )
    if looks_like_extraction(signs) is None:
        return None
    sizes = Counter(cluster_near_duplicates(queries[:COMPARED]))
    alone = sum(size == 1 for size in sizes.values()) / max(1, len(queries[:COMPARED]))
    return looks_like_extraction(replace(signs, unrepeated_share=alone))


def _free_slug(name: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "workload"
    taken = set(Workload.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    return next(slug for slug in (stem, *(f"{stem}-{n}" for n in range(2, 10_000))) if slug not in taken)
