"""Lets the student try, and turns whatever goes wrong into a reason: its failure is never the tenant's failure."""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec

from ingestion.core.agreement import to_answer
from ingestion.core.calls import Answer, Ask, Kind, Usage
from ingestion.core.dialects import render_answer, render_stream
from serving.core.accept import Accept, accept
from serving.core.deadline import Deadlines
from serving.core.gates import Draft, Gate, Rung, StudentSpec
from serving.core.snapshot import Snapshot
from serving.student import TIMED_OUT, UnableToDraft, draft

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of asking the student: an answer to be used with its rendered body, or a reason to ask the teacher."""

    adapter: str = ""
    reason: str = ""
    draft: Draft | None = field(default=None, repr=False)
    score: float | None = None
    answer: Answer | None = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)


NOT_TRIED = Attempt()


@dataclass(frozen=True, slots=True)
class Students:
    """The way to the replicas, and how long a draft may take, all told."""

    http: aiohttp.ClientSession
    deadlines: Deadlines

    async def draft(self, spec: StudentSpec, query: str, *, snapshot: Snapshot, salt: str) -> Draft:
        """Ask one replica of each kind that the rung takes, and learn how long it took. Raises UnableToDraft."""
        deadline = self.deadlines.of(spec.adapter)
        needs_engine = spec.rung is Rung.LORA
        try:
            made = await draft(
                spec,
                query,
                http=self.http,
                encoder_url=_pick(snapshot.encoder_urls, down="encoder_down"),
                vllm_url=_pick(snapshot.vllm_urls, down="vllm_down") if needs_engine else "",
                salt=salt,
                timeout=deadline,
            )
        except UnableToDraft as error:
            if error.reason == TIMED_OUT:
                self.deadlines.missed(spec.adapter, deadline)
            raise
        self.deadlines.made(spec.adapter, made.ms / 1000)
        return made


async def attempt(
    spec: StudentSpec,
    gate: Gate,
    query: str,
    *,
    ask: Ask,
    call_id: str,
    created: int,
    students: Students,
    snapshot: Snapshot,
    salt: str,
    estimate: Callable[[Ask, Answer], Usage],
) -> Attempt:
    """Ask the student, hold its draft against the gate, render it. Raises nothing but a cancellation.

    `estimate` counts tokens: those that callers see of a student's answer are by length, in both rungs, since the
    student's own are no measure of the teacher's.
    """
    made, score = None, None
    try:
        made = await students.draft(spec, query, snapshot=snapshot, salt=salt)
        verdict = accept(made.answer, made.evidence, gate)
        score = verdict.score
        if not isinstance(verdict, Accept) or made.answer is None:
            reason = "malformed" if isinstance(verdict, Accept) else verdict.reason
            return Attempt(adapter=spec.adapter, reason=reason, draft=made, score=score)
        answer = _show(spec, made.answer, ask=ask, estimate=estimate)
        render = render_stream if ask.stream else render_answer
        body = render(ask, answer, call_id=call_id, created=created)
    except UnableToDraft as error:
        return Attempt(adapter=spec.adapter, reason=error.reason)
    except Exception as error:  # noqa: BLE001  the edge between student and tenant: whatever breaks, the teacher answers
        logger.error("the student broke: %s", type(error).__name__)
        return Attempt(adapter=spec.adapter, reason="student_broke", draft=made, score=score)
    return Attempt(adapter=spec.adapter, reason="accepted", draft=made, score=score, answer=answer, body=body)


def _show(spec: StudentSpec, canonical_answer: str, *, ask: Ask, estimate: Callable[[Ask, Answer], Usage]) -> Answer:
    """The canonical answer as the teacher would have written it; the model it names is the adapter."""
    kind, forms = Kind(spec.kind), spec.labels_display
    plain = to_answer(kind, canonical_answer, labels_display=forms, model=spec.adapter, usage=None)
    return msgspec.structs.replace(plain, usage=estimate(ask, plain))


def _pick(urls: Sequence[str], *, down: str) -> str:
    if not urls:
        raise UnableToDraft(down)
    return random.choice(urls)
