"""Turns a workload's logged calls into a frozen dataset version: what may train, what tunes, what certifies.

Data flow: teacher-answered calls, newest first up to a bound → bodies opened and read → each either a pair or left out
for a counted reason (terms, truncation, refusal, another template, another kind, contradiction) → near duplicates
clustered → split by time, a cluster on one side → rare labels and personal data out of training → sealed examples with
the stance each came in under → frozen with a content hash.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from math import ceil
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import IntegrityError

from ingestion.core.agreement import answer_schema, canonical
from ingestion.core.answer_schema import find_excess
from ingestion.core.calls import Answer, Arm, Finish, Kind
from ingestion.core.dedupe import cluster_near_duplicates
from ingestion.core.reading import is_storable
from ingestion.core.redact import redact
from ingestion.core.split import Split, assign_splits
from ingestion.core.suitability import MAX_LABELS
from ingestion.core.templates import Template, extract_query
from ingestion.core.terms import Stance, may_train
from ingestion.erase import held_calls
from ingestion.models import Call, Dataset, Example, Workload
from ingestion.payloads import Pair, UnableToReadPair, in_batches, payloads_of, read_pair
from tenants.core.sealing import open_sealed, seal
from tenants.events import record_event
from tenants.models import Event, ProviderCredential
from tenants.provision import data_key_in_force
from tenants.scope import acting_for

CHUNK = 500
UNBIASED = (Arm.TEACHER, Arm.CONTROL)  # drawn without looking at the query: only these tune and calibrate
LONGEST_QUERY = 2000  # characters; longer is the teacher's work
LONGEST_ANSWER = 1000  # characters; longer cannot be learnt
MIN_LABEL_ROWS = 2
GROWTH_TO_RETRY = 1.1  # calls there must be, of those there were when too few pairs were usable
MIN_SPLIT_ROWS = 5  # a split without rows can neither tune nor certify


class UnableToCurate(Exception):
    """There are too few usable pairs; `missing` says how many more are needed."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} more usable pairs are needed")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair on its way into a dataset."""

    call_id: UUID
    at: datetime
    arm: str
    provider: str
    stance: Stance
    query: str = field(repr=False)
    answer: str = field(repr=False)
    shown: str = field(repr=False)  # the answer's text as the teacher wrote it
    unusable: str = ""  # why it cannot train
    cluster: int = 0
    split: Split | None = None


def curation_due(tenant_id: UUID) -> list[UUID]:
    """Workloads that a dataset should be made for: suitable, and grown enough since the last one or the last try."""
    with acting_for(tenant_id):
        suitable = Workload.objects.filter(verdict="suitable")
        return [workload.id for workload in suitable if _has_grown(workload)]


def curate(tenant_id: UUID, workload_id: UUID, *, now: datetime, min_pairs: int | None = None) -> Dataset:
    """Freeze the workload's next dataset version. Raises UnableToCurate where too few pairs are usable.

    `min_pairs` is how many must remain; by default four fifths of what the stage waits for, since some always fall out.

    Safe to run twice at once: the version is taken before the first look and is unique, so the second is given the
    first's dataset.
    """
    with acting_for(tenant_id):
        workload = Workload.objects.get(id=workload_id)
        version = _next_version(workload)
    candidates, left_out = _gather(tenant_id, workload)
    kept = _without_contradictions(_without_unusable(_assign(candidates, left_out), left_out), left_out)
    kept = _without_excess(kept, Kind(workload.kind), left_out)
    needed = int(settings.MIN_PAIRS * 0.8) if min_pairs is None else min_pairs
    smallest = min(sum(row.split is split for row in kept) for split in Split)
    if len(kept) < needed or smallest < MIN_SPLIT_ROWS:
        missing = max(needed - len(kept), MIN_SPLIT_ROWS - smallest)
        _put_off(workload, missing, left_out)
        raise UnableToCurate(missing)
    try:
        with acting_for(tenant_id):
            return _freeze(workload, version, kept, left_out, now)
    except IntegrityError:
        with acting_for(tenant_id):
            return Dataset.objects.filter(workload_id=workload_id).latest("version")


def open_example(example: Example, data_key: bytes) -> tuple[str, str]:
    """(query, canonical answer) of an example in the clear."""
    texts = [
        open_sealed(data_key, bytes(sealed), context=example_context(example, column)).decode()
        for column, sealed in (("query", example.query_sealed), ("answer", example.answer_sealed))
    ]
    return texts[0], texts[1]


def example_context(example: Example, column: str) -> str:
    """The place an example's text is sealed for."""
    return f"{example.tenant_id}/ingestion_example/{column}/{example.dataset_id}/{example.call_id}/1"


def _put_off(workload: Workload, missing: int, left_out: Counter[str]) -> None:
    """Say why, and look again only once what is missing may be there: a try reads every body."""
    with acting_for(workload.tenant_id):
        answered = Call.answered_for(workload.id).count()
        Workload.objects.filter(id=workload.id).update(
            left_out={reason: count for reason, count in left_out.items() if count},
            curate_from=max(answered + missing, ceil(GROWTH_TO_RETRY * answered)),
        )


def _has_grown(workload: Workload) -> bool:
    if workload.curate_from and Call.answered_for(workload.id).count() < workload.curate_from:
        return False
    last = Dataset.objects.filter(workload=workload).order_by("-version").first()
    if last is None:
        return True
    looked_at = sum(last.counts.values()) + sum(last.left_out.values())
    since = Call.answered_for(workload.id).filter(at__gte=last.created_at)
    return bool(since.count() >= (settings.DATASET_GROWTH - 1) * looked_at)


def _gather(tenant_id: UUID, workload: Workload) -> tuple[list[Candidate], Counter[str]]:
    """Read the newest calls in batches, each in a short transaction of its own."""
    left_out: Counter[str] = Counter()
    candidates: list[Candidate] = []
    with acting_for(tenant_id):
        data_key, histories = data_key_in_force(), Histories()
        answered = (
            Call.objects.filter(workload_id=workload.id, failovers=0, content_kept=True)
            .exclude(arm=Arm.STUDENT)
            .order_by("-at")
        )
        ids = list(answered.values_list("id", flat=True)[: settings.MAX_PAIRS])
    for start in range(0, len(ids), CHUNK):
        with acting_for(tenant_id):
            batches = list(in_batches(list(Call.objects.filter(id__in=ids[start : start + CHUNK]))))
        for calls in batches:
            with acting_for(tenant_id):
                payloads = payloads_of(calls)
                made = [_candidate(call, payloads.get(call.id), workload, data_key, histories) for call in calls]
            left_out.update(reason for reason in made if isinstance(reason, str))
            candidates += [candidate for candidate in made if isinstance(candidate, Candidate)]
    return candidates, left_out


def _candidate(
    call: Call, payload: object, workload: Workload, data_key: bytes, histories: "Histories"
) -> Candidate | str:
    """The pair a call makes, or the reason it makes none."""
    history = histories.of(call)
    stance = stance_at(history, call.at)
    facts = _refuse_facts(call, stance) if history else "provider_key_forgotten"
    if facts or payload is None:
        return facts or "no_payload"
    try:
        pair = read_pair(call, payload, data_key)  # type: ignore[arg-type]  # a Payload, from a dict of them
    except UnableToReadPair:
        return "unreadable"
    return _candidate_of(pair, workload, stance)


def _refuse_facts(call: Call, stance: Stance) -> str:
    if not may_train(stance):
        return "terms_forbid"
    if call.status != 200 or not call.complete:
        return "no_whole_answer"
    return ""


def _candidate_of(pair: Pair, workload: Workload, stance: Stance) -> Candidate | str:
    """What the pair is to a dataset. One whose answer nobody could give, a refusal say, has the answer "": it cannot
    train, and held out it counts against the student, as its like will in live traffic."""
    if pair.ask.tied:
        return "provider_state"  # what else the teacher was told is not in the log
    query = extract_query(msgspec.convert(workload.template, Template), pair.ask)
    if query is None:
        return "another_template"
    if len(query) > LONGEST_QUERY:
        return "too_long"
    call, unusable = pair.call, _unusable(pair.answer, Kind(workload.kind))
    answer = "" if unusable else canonical(Kind(workload.kind), pair.answer) or ""
    shown = "" if unusable else pair.answer.text or ""
    return Candidate(call.id, call.at, call.arm, call.asked_provider, stance, query, answer, shown, unusable)


def _unusable(answer: Answer, kind: Kind) -> str:
    """Why nothing can be learned from an answer; "" if something can."""
    if answer.finish is Finish.LENGTH:
        return "truncated"
    if answer.finish is Finish.REFUSAL:
        return "refusal"
    found = canonical(kind, answer)
    if found and len(found) > LONGEST_ANSWER:
        return "answer_too_long"
    if found and not is_storable(found):
        return "unreadable"
    return "" if found else f"not_a_{kind}"


def _without_unusable(rows: Iterable[Candidate], left_out: Counter[str]) -> list[Candidate]:
    kept = []
    for row in rows:
        if row.unusable and row.split is Split.TRAIN:
            left_out[row.unusable] += 1
        else:
            kept.append(row)
    return kept


def _without_contradictions(candidates: Iterable[Candidate], left_out: Counter[str]) -> list[Candidate]:
    """Leave queries that the teacher answered in two ways out of training. Held-out rows stay, as in live traffic."""
    answers: dict[str, set[str]] = defaultdict(set)
    rows = list(candidates)
    for row in rows:
        answers[row.query].add(row.answer)
    kept = [row for row in rows if len(answers[row.query]) == 1 or row.split is not Split.TRAIN]
    left_out["contradiction"] += len(rows) - len(kept)
    return kept


def _without_excess(rows: list[Candidate], kind: Kind, left_out: Counter[str]) -> list[Candidate]:
    """Nothing can train where the answers' schema is more than a decoder should be given."""
    schema = answer_schema(kind, [row.answer for row in rows if row.split is Split.TRAIN])
    if not find_excess(schema):
        return rows
    kept = [row for row in rows if row.split is not Split.TRAIN]
    left_out["answers_too_varied"] += len(rows) - len(kept)
    return kept


def _assign(rows: list[Candidate], left_out: Counter[str]) -> list[Candidate]:
    """Clusters and splits; deferred calls only train, since their mix is not live traffic's."""
    rows = sorted(rows, key=lambda row: row.at)
    clusters = cluster_near_duplicates([row.query for row in rows])
    unbiased = [index for index, row in enumerate(rows) if row.arm in UNBIASED]
    splits = assign_splits(
        clusters=[clusters[index] for index in unbiased], at=[rows[index].at.timestamp() for index in unbiased]
    )
    by_row = dict(zip(unbiased, splits, strict=True))
    held_out = {clusters[index] for index, split in by_row.items() if split in (Split.TUNING, Split.CALIBRATION)}
    kept = []
    for index, row in enumerate(rows):
        split = by_row[index] if index in by_row else (None if clusters[index] in held_out else Split.TRAIN)
        if split is None:
            left_out["near_duplicate"] += 1
        else:
            kept.append(replace(row, cluster=clusters[index], split=split))
    return kept


def _next_version(workload: Workload) -> int:
    last = Dataset.objects.filter(workload=workload).order_by("-version").first()
    return last.version + 1 if last else 1


def _freeze(workload: Workload, version: int, rows: list[Candidate], left_out: Counter[str], now: datetime) -> Dataset:
    """Write the version, its examples and its event in one transaction."""
    kind, data_key = Kind(workload.kind), data_key_in_force()
    held = held_calls([row.call_id for row in rows])
    left_out["erased"] += len(rows) - len(held)
    rows = [row for row in rows if row.call_id in held]
    rows, labels = _close_labels(rows, left_out) if kind is Kind.LABEL else (rows, {})
    rows, redactions = _redact_training(rows) if kind is Kind.LABEL else (rows, 0)
    train = [row for row in rows if row.split is Split.TRAIN]
    dataset = Dataset.objects.create(
        workload=workload,
        version=version,
        kind=kind,
        template=workload.template,
        labels=labels,
        answer_schema=answer_schema(kind, [row.answer for row in train]),
        max_query_chars=min(LONGEST_QUERY, int(1.2 * max(len(row.query) for row in train))),
        counts=Counter(str(row.split) for row in rows),
        left_out={reason: count for reason, count in left_out.items() if count},
        stances=Counter(str(row.stance) for row in rows),
        redactions=redactions,
        content_hash=_content_hash(rows),
        created_at=now,
        frozen_at=now,
    )
    Workload.objects.filter(id=workload.id).update(left_out={}, curate_from=0)
    Example.objects.bulk_create([_sealed(dataset, row, data_key) for row in rows], batch_size=CHUNK)
    record_event(
        "dataset.frozen",
        now=now,
        subject_id=dataset.id,
        workload=str(workload.id),
        version=dataset.version,
        **dataset.counts,
    )
    return dataset


def _close_labels(rows: list[Candidate], left_out: Counter[str]) -> tuple[list[Candidate], dict[str, str]]:
    """The closed label set, from training rows alone, of the most frequent. A label too rare to learn is left out of
    training, but stays in the other splits: live traffic has it too, and there the student is wrong."""
    seen = Counter(row.answer for row in rows if row.split is Split.TRAIN)
    known = {label for label, count in seen.most_common(MAX_LABELS) if count >= MIN_LABEL_ROWS}
    kept = [row for row in rows if row.split is not Split.TRAIN or row.answer in known]
    left_out["rare_label"] += len(rows) - len(kept)
    shown: dict[str, Counter[str]] = defaultdict(Counter)
    for row in kept:
        if row.answer in known:
            shown[row.answer][row.shown.strip()] += 1
    return kept, {label: shown[label].most_common(1)[0][0] for label in sorted(known)}


def _redact_training(rows: list[Candidate]) -> tuple[list[Candidate], int]:
    """Mask personal data in what the weights will see. The other splits stay as live traffic is, or they would lie."""
    out, redactions = [], 0
    for row in rows:
        if row.split is Split.TRAIN:
            text, masked = redact(row.query)
            redactions += masked
            row = replace(row, query=text)
        out.append(row)
    return out, redactions


def _sealed(dataset: Dataset, row: Candidate, data_key: bytes) -> Example:
    example = Example(
        tenant_id=dataset.tenant_id,
        dataset=dataset,
        call_id=row.call_id,
        at=row.at,
        split=str(row.split),
        cluster=row.cluster,
        provider=row.provider,
        stance=str(row.stance),
    )
    example.query_sealed = seal(data_key, row.query.encode(), context=example_context(example, "query"))
    example.answer_sealed = seal(data_key, row.answer.encode(), context=example_context(example, "answer"))
    return example


def _content_hash(rows: Iterable[Candidate]) -> str:
    lines = sorted(
        f"{row.call_id} {row.split} {hashlib.sha256(row.query.encode()).hexdigest()} "
        f"{hashlib.sha256(row.answer.encode()).hexdigest()}"
        for row in rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Histories:
    """When which stances on the terms of each credential came into force, each history read when it is first asked for.

    Needs the tenant in force each time that it reads.
    """

    def __init__(self) -> None:
        self._known: dict[UUID | str, list[tuple[datetime, Stance]]] = {}

    def of(self, call: Call) -> list[tuple[datetime, Stance]]:
        """Those of the credential that a call went under; of one that names none, its provider's usual one."""
        named: UUID | str = call.credential_id or call.asked_provider
        if named not in self._known:
            mine = (one for one in ProviderCredential.usual_first() if named in (one.id, one.provider))
            self._known[named] = _stance_history(next(mine, None))
        return self._known[named]


def _stance_history(credential: ProviderCredential | None) -> list[tuple[datetime, Stance]]:
    """Oldest first, and last the one in force now; nothing for a credential that is gone."""
    if credential is None:
        return []
    stated = Event.objects.filter(kind__in=["credential.stored", "credential.stance_stated"]).order_by("at", "id")
    mine = stated.filter(subject_id=str(credential.id))
    earlier = [(event.at, Stance(event.data["stance"])) for event in mine]
    return [*earlier, (credential.stance_at, Stance(credential.stance))]  # the row itself has the last word


def stance_at(history: Sequence[tuple[datetime, Stance]], at: datetime) -> Stance:
    """The stance a pair of an instant is under: the one in force then, unless a later one forbids."""
    if not history or history[-1][1] is Stance.FORBIDDEN:
        return Stance.FORBIDDEN
    in_force = [stance for since, stance in history if since <= at]
    return in_force[-1] if in_force else Stance.FORBIDDEN
