"""Asks a deployed adapter every held-out question on the replica that will serve it, beside the untrained base.

Data flow: a live deployment of a candidate → tuning and calibration examples opened → each drafted through the same
`draft()` as live traffic → rows of evidence, answered, differs (no text) → an evaluation with its arms' agreement.
`certify_adapter` then says what may be promised on it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
from django.conf import settings

from ingestion.core.agreement import differs
from ingestion.core.calls import Kind
from ingestion.core.split import Split
from ingestion.curate import open_example
from ingestion.models import Example
from serving.core.gates import Draft, Evidence, Rung, StudentSpec
from serving.core.routing import stops_query
from serving.models import Deployment, Evaluation
from serving.student import NO_EVIDENCE, UnableToDraft, complete, draft
from tenants.data_keys import purpose_key
from tenants.provision import data_key_in_force
from tenants.scope import acting_for
from training.models import Adapter

AT_ONCE = 16
ASK_SECONDS = 60.0  # patient: an evaluation measures answers, not how busy the machine is
TRIES = 3
BASE_ROWS = 50
BATCH = 64  # questions between two looks at the lease
LEASE = timedelta(minutes=20)  # longer than the slowest batch: every try at its limit
ATTEMPTS = 24
PAUSE = timedelta(hours=1)  # between two attempts: a day of them, since a training may be lost with the last


class UnableToEvaluate(Exception):
    """The replicas did not answer; the evaluation is tried again later, or has failed after its last attempt."""


@dataclass(frozen=True, slots=True)
class Question:
    """One held-out example in the clear, for as long as an evaluation runs."""

    example_id: int
    split: str
    query: str = field(repr=False)
    teacher: str = field(repr=False)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one question: no text."""

    example_id: int
    split: str
    evidence: Evidence
    answered: bool
    differs: bool


def evaluations_due(tenant_id: UUID, *, now: datetime) -> list[UUID]:
    """Live deployments of candidates without an evaluation, or whose evaluation lost its worker."""
    with acting_for(tenant_id):
        live = Deployment.objects.filter(status=Deployment.Status.LIVE, adapter__status=Adapter.Status.CANDIDATE)
        busy = Evaluation.objects.exclude(status=Evaluation.Status.RUNNING, lease_until__lt=now)
        return list(live.exclude(id__in=busy.values("deployment_id")).values_list("id", flat=True))


def evaluate(tenant_id: UUID, deployment_id: UUID, *, clock: Callable[[], datetime]) -> Evaluation | None:
    """Evaluate one deployment; None if it is another worker's, or over. Raises UnableToEvaluate."""
    evaluation = _claim(tenant_id, deployment_id, clock())
    if evaluation is None:
        return None
    spec, salt, questions = _prepare(tenant_id, evaluation)
    rows: list[Row] = []
    try:
        for start in range(0, len(questions), BATCH):
            rows += asyncio.run(_ask_all(spec, questions[start : start + BATCH], salt=salt))
            with acting_for(tenant_id):
                progress = {"asked": len(rows), "questions": len(questions)}
                if not evaluation.prolong(clock() + LEASE, progress=progress, error=""):
                    return None
        base = asyncio.run(_ask_base(spec, questions, salt=salt))
    except UnableToDraft as error:
        _note_failure(evaluation, error.reason, clock())
        raise UnableToEvaluate(error.reason) from error
    arms: dict[str, Any] = {"student": _agreement(rows), "base": base, "rows": len(rows)}
    with acting_for(tenant_id):
        kept = {"arms": arms, "rows": msgspec.to_builtins(rows), "error": ""}
        done = evaluation.finish(Evaluation.Status.DONE, clock(), told=arms, **kept)
        return Evaluation.objects.get(id=evaluation.id) if done else None


def rows_of(evaluation: Evaluation) -> list[Row]:
    """The stored rows, typed again."""
    return msgspec.convert(evaluation.rows, list[Row])


def cache_salt(data_key: bytes) -> str:
    """What keeps a tenant's prefix cache in vLLM apart from everybody's."""
    return purpose_key(data_key, "cache-salt").hex()[:32]


def _claim(tenant_id: UUID, deployment_id: UUID, now: datetime) -> Evaluation | None:
    with acting_for(tenant_id):
        deployment = Deployment.objects.get(id=deployment_id)
        evaluation, begun = Evaluation.objects.get_or_create(
            deployment=deployment, defaults={"created_at": now, "lease_until": now + LEASE}
        )
        if begun:
            return evaluation
        claimed = evaluation.claim(now, lease=LEASE)
    if claimed and evaluation.attempts > ATTEMPTS:
        _give_up(evaluation, evaluation.error or "its workers were lost", now)
        return None
    return evaluation if claimed else None


def _note_failure(evaluation: Evaluation, reason: str, now: datetime) -> None:
    if evaluation.attempts >= ATTEMPTS:
        _give_up(evaluation, reason, now)
    else:
        with acting_for(evaluation.tenant_id):
            evaluation.prolong(now + PAUSE, error=reason)


def _give_up(evaluation: Evaluation, reason: str, now: datetime) -> None:
    """What cannot be measured is not used: the evaluation has failed, and its adapter is rejected."""
    with acting_for(evaluation.tenant_id):
        told = {"reason": reason.replace("_", " ")}
        if evaluation.finish(Evaluation.Status.FAILED, now, told=told, error=told["reason"]):
            adapter = Adapter.objects.get(deployments=evaluation.deployment_id)
            adapter.advance(Adapter.Status.REJECTED, now, reason=f"evaluation failed: {told['reason']}")


def _prepare(tenant_id: UUID, evaluation: Evaluation) -> tuple[StudentSpec, str, list[Question]]:
    with acting_for(tenant_id):
        deployment = Deployment.objects.select_related("adapter").get(id=evaluation.deployment_id)
        data_key = data_key_in_force()
        held_out = Example.objects.filter(
            dataset_id=deployment.adapter.dataset_id, split__in=[Split.TUNING, Split.CALIBRATION]
        )
        questions = [
            Question(example.id, example.split, *open_example(example, data_key)) for example in held_out.order_by("id")
        ]
    return msgspec.convert(deployment.spec, StudentSpec), cache_salt(data_key), questions


async def _ask_all(spec: StudentSpec, questions: list[Question], *, salt: str) -> list[Row]:
    gate = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as http:

        async def ask(question: Question) -> Row:
            async with gate:
                made = await draft_patiently(spec, question.query, http=http, salt=salt)
            return Row(
                example_id=question.example_id,
                split=question.split,
                evidence=made.evidence,
                answered=made.answer is not None,
                differs=differs(Kind(spec.kind), made.answer, question.teacher),
            )

        return list(await asyncio.gather(*map(ask, questions)))


async def draft_patiently(spec: StudentSpec, query: str, *, http: aiohttp.ClientSession, salt: str) -> Draft:
    """One draft, tried again where a replica stumbles. Raises UnableToDraft at last.

    A query that a pre-gate gives to the teacher is not asked at all.
    """
    if stops_query(spec, query) is not None:
        return NO_DRAFT
    for remaining in reversed(range(TRIES)):
        try:
            return await draft(
                spec,
                query,
                http=http,
                encoder_url=settings.ENCODER_URLS[0],
                vllm_url=settings.VLLM_URLS[0],
                salt=salt,
                timeout=ASK_SECONDS,
            )
        except UnableToDraft as error:
            if error.reason in {"control_tokens", "malformed", "refused"}:
                return NO_DRAFT  # live traffic gives these to the teacher
            if not remaining or error.reason == "adapter_missing":
                raise
    raise UnableToDraft("vllm_down")


NO_DRAFT = Draft(answer=None, evidence=NO_EVIDENCE)


async def _ask_base(spec: StudentSpec, questions: list[Question], *, salt: str) -> float:
    """Agreement of the base arm on the first tuning rows: the untrained model under the teacher's own instructions, or
    for a head the most frequent answer."""
    rows = [question for question in questions if question.split == Split.TUNING][:BASE_ROWS]
    if not rows:
        return 0.0
    if spec.rung is Rung.HEAD:
        given = Counter(question.teacher for question in rows if question.teacher)
        return given.most_common(1)[0][1] / len(rows) if given else 0.0
    base, gate = base_spec(spec), asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as http:

        async def agrees(question: Question) -> bool:
            async with gate:
                try:
                    answer = await complete(
                        base, question.query, http=http, vllm_url=settings.VLLM_URLS[0], salt=salt, timeout=ASK_SECONDS
                    )
                except UnableToDraft:
                    return False
            return not differs(Kind(spec.kind), answer, question.teacher)

        return sum(await asyncio.gather(*map(agrees, rows))) / len(rows)


def base_spec(spec: StudentSpec) -> StudentSpec:
    """The untrained base with the same closed answers, told before the query what the teacher's prompt says."""
    told = f"{spec.prompt_prefix}{spec.template.system}\n{spec.template.prefix}"
    return msgspec.structs.replace(spec, adapter=settings.BASE_SERVED_NAME, prompt_prefix=told)


def _agreement(rows: list[Row]) -> float:
    return sum(not row.differs for row in rows) / max(len(rows), 1)
