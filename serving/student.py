"""Asks one adapter for one answer, the same way in live traffic, shadow and evaluation, so that one gate fits all.

The head rung is the encoder alone. The LoRA rung asks the encoder and vLLM at once: the answer is vLLM's, the evidence
is both's. vLLM gets a body made here from an allowlist; nothing of a caller's request but the query reaches it.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from math import exp, fsum, log
from typing import TypeVar

import aiohttp
import msgspec

from ingestion.core.agreement import canonical
from ingestion.core.calls import Answer, Finish, Kind, ToolCall
from serving.core.gates import Draft, Evidence, Rung, StudentSpec
from serving.core.spans import leaf_spans

TIMED_OUT = "timeout"  # why there is no draft: it was not there in time
REPLY_LIMIT = 1_000_000  # bytes; a replica's answer is a few kB, whatever is larger is not one
NO_EVIDENCE = Evidence(weakest=0.0, typical=0.0, spread=0.0, similarity=-1.0, neighbour_agreement=0.0, novelty=1e-9)

Reply = TypeVar("Reply")
First = TypeVar("First")
Second = TypeVar("Second")


class UnableToDraft(Exception):
    """No answer from the student.

    `reason` is one word for the log: encoder_down, vllm_down, adapter_missing, timeout, malformed or control_tokens.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Decision(msgspec.Struct, frozen=True):
    """The encoder's answer to /v1/decide. `labels` is empty for the LoRA rung; both lists are best first."""

    entropy: float
    similarity: float
    novelty: float
    labels: list[tuple[str, float]]
    neighbours: list[tuple[str, float]]


class Logprobs(msgspec.Struct, frozen=True):
    """One entry a generated token, in the shape of OpenAI's legacy completions."""

    token_logprobs: list[float]
    text_offset: list[int]
    top_logprobs: list[dict[str, float]]


class Choice(msgspec.Struct, frozen=True):
    """One completion."""

    text: str
    logprobs: Logprobs
    finish_reason: str | None = None


class TokenCount(msgspec.Struct, frozen=True):
    """What vLLM counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(msgspec.Struct, frozen=True):
    """vLLM's answer to /v1/completions, as far as it is read."""

    choices: list[Choice]
    usage: TokenCount


# What a replica says of this one query; any other status is its own fault. 400 is vLLM's for one beyond its length.
REFUSALS = {404: "adapter_missing", 400: "refused", 413: "refused", 422: "refused"}

_decisions = msgspec.json.Decoder(Decision)
_completions = msgspec.json.Decoder(Completion)


async def draft(
    spec: StudentSpec,
    query: str,
    *,
    http: aiohttp.ClientSession,
    encoder_url: str,
    vllm_url: str,
    salt: str,
    timeout: float,
) -> Draft:
    """Ask the student. `salt` keeps a tenant's prefix cache apart; `timeout` is seconds for all of it.

    Raises UnableToDraft when a replica is down, late, without the adapter, or answers something else.
    """
    _refuse_control_tokens(spec, query)
    started = time.perf_counter()
    try:
        async with asyncio.timeout(timeout):
            if spec.rung is Rung.HEAD:
                made = _read_head(await _decide(spec, query, http=http, url=encoder_url))
            else:
                decision, completion = await _both(
                    _decide(spec, query, http=http, url=encoder_url),
                    _complete(spec, query, http=http, url=vllm_url, salt=salt),
                )
                made = _read_lora(spec, decision, completion)
    except TimeoutError as error:
        raise UnableToDraft(TIMED_OUT) from error
    return msgspec.structs.replace(made, ms=(time.perf_counter() - started) * 1000)


async def complete(
    spec: StudentSpec, query: str, *, http: aiohttp.ClientSession, vllm_url: str, salt: str, timeout: float
) -> str | None:
    """The canonical answer of vLLM alone, without evidence: how an evaluation asks the untrained base.

    None where the answer is not of the kind or was cut off. `timeout` is seconds. Raises UnableToDraft like `draft`.
    """
    _refuse_control_tokens(spec, query)
    try:
        async with asyncio.timeout(timeout):
            completion = await _complete(spec, query, http=http, url=vllm_url, salt=salt)
    except TimeoutError as error:
        raise UnableToDraft(TIMED_OUT) from error
    return _read_answer(Kind(spec.kind), _only_choice(completion))


def _refuse_control_tokens(spec: StudentSpec, query: str) -> None:
    if any(token in query for token in spec.control_tokens):
        raise UnableToDraft("control_tokens")


async def _both(first: Awaitable[First], second: Awaitable[Second]) -> tuple[First, Second]:
    """Run both; the first failure stops the other, so that no replica works on for nobody."""
    one, two = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(one, two)
    finally:
        one.cancel()
        two.cancel()


async def _decide(spec: StudentSpec, query: str, *, http: aiohttp.ClientSession, url: str) -> Decision:
    body = msgspec.json.encode({"adapter": spec.adapter, "query": query})
    return await _post(http, f"{url}/v1/decide", body, decoder=_decisions, down="encoder_down")


async def _complete(spec: StudentSpec, query: str, *, http: aiohttp.ClientSession, url: str, salt: str) -> Completion:
    body = msgspec.json.encode(completion_body(spec, query, salt=salt))
    return await _post(http, f"{url}/v1/completions", body, decoder=_completions, down="vllm_down")


def completion_body(spec: StudentSpec, query: str, *, salt: str) -> dict[str, object]:
    """All that vLLM is ever sent: the exact prompt of training, greedy decoding, and the answer's closed form."""
    body: dict[str, object] = {
        "model": spec.adapter,
        "prompt": f"{spec.prompt_prefix}{query}{spec.prompt_suffix}",
        "max_tokens": spec.max_output_tokens,
        "temperature": 0,
        "logprobs": 2,
        "cache_salt": salt,
        "add_special_tokens": False,  # training added none; a second start token would be another prompt
    }
    if spec.kind == Kind.LABEL:
        body["structured_outputs"] = {"choice": list(spec.labels)}
    elif spec.answer_schema:
        body["structured_outputs"] = {"json": msgspec.json.decode(spec.answer_schema)}
    return body


async def _post(
    http: aiohttp.ClientSession, url: str, body: bytes, *, decoder: msgspec.json.Decoder[Reply], down: str
) -> Reply:
    try:
        async with http.post(
            url, data=body, headers={"content-type": "application/json"}, allow_redirects=False
        ) as response:
            if response.status != 200:
                raise UnableToDraft(REFUSALS.get(response.status, down))
            raw = await _read(response)
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise UnableToDraft(down) from error
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnableToDraft("malformed") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body, refused past REPLY_LIMIT: a broken replica must not fill the gateway's memory."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > REPLY_LIMIT:
            raise UnableToDraft("malformed")
        parts.append(part)
    return b"".join(parts)


def _read_head(decision: Decision) -> Draft:
    if not decision.labels:
        raise UnableToDraft("malformed")
    probabilities = [probability for _, probability in decision.labels]
    answer = canonical(Kind.LABEL, _as_answer(Kind.LABEL, decision.labels[0][0]))
    evidence = _evidence(
        decision,
        answer,
        weakest=probabilities[0],
        typical=probabilities[0] - (probabilities[1] if len(probabilities) > 1 else 0.0),
        spread=decision.entropy,
    )
    return Draft(answer=answer, evidence=evidence)


def _read_lora(spec: StudentSpec, decision: Decision, completion: Completion) -> Draft:
    choice, kind = _only_choice(completion), Kind(spec.kind)
    answer = _read_answer(kind, choice)
    if answer is None:
        evidence = NO_EVIDENCE
    elif kind is Kind.LABEL:
        evidence = _label_evidence(decision, answer, choice.logprobs)
    else:
        evidence = _value_evidence(decision, answer, choice)
    return Draft(
        answer=answer,
        evidence=evidence,
        input_tokens=completion.usage.prompt_tokens,
        output_tokens=completion.usage.completion_tokens,
    )


def _only_choice(completion: Completion) -> Choice:
    if not completion.choices:
        raise UnableToDraft("malformed")
    return completion.choices[0]


def _read_answer(kind: Kind, choice: Choice) -> str | None:
    """The canonical answer; a truncated one is none, however sure its tokens are."""
    return canonical(kind, _as_answer(kind, choice.text)) if choice.finish_reason == "stop" else None


def _as_answer(kind: Kind, text: str) -> Answer:
    """The student's text as an `Answer`; a tool call is decoded as `{"name", "arguments"}`."""
    if kind is not Kind.TOOL_CALL:
        return Answer(text=text, finish=Finish.STOP, model="")
    try:
        called = msgspec.json.decode(text, type=_Called)
    except (msgspec.DecodeError, UnicodeError):
        return Answer(text="", finish=Finish.STOP, model="")
    call = ToolCall(name=called.name, arguments=bytes(called.arguments).decode())
    return Answer(text="", finish=Finish.TOOL_CALLS, model="", tool_calls=(call,))


class _Called(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw


def _label_evidence(decision: Decision, answer: str, seen: Logprobs) -> Evidence:
    """A label's log-probabilities come renormalised over the choices that remain, so their sum is the label's."""
    if not seen.token_logprobs or not seen.top_logprobs:
        raise UnableToDraft("malformed")
    steps = [sorted(map(_probability, step.values()), reverse=True) for step in seen.top_logprobs]
    margins = [step[0] - (step[1] if len(step) > 1 else 0.0) for step in steps if step]
    return _evidence(
        decision,
        answer,
        weakest=_probability(fsum(seen.token_logprobs)),
        typical=min(margins, default=0.0),
        spread=fsum(-p * log(p) for p in steps[0] if p > 0.0),
    )


def _value_evidence(decision: Decision, answer: str, choice: Choice) -> Evidence:
    """The least sure value field, and the mean over value tokens; keys and punctuation are the schema's doing."""
    fields = tokens_by_leaf(choice.text, choice.logprobs)
    values = [_probability(one) for field in fields for one in field]
    return _evidence(
        decision,
        answer,
        weakest=min(_probability(fsum(field)) if field else 0.0 for field in fields),  # unseen is unsure
        typical=fsum(values) / max(len(values), 1),
        spread=0.0,
    )


def tokens_by_leaf(text: str, seen: Logprobs) -> list[list[float]]:
    """The log-probabilities of the tokens that touch each leaf value of the JSON `text`, one list a leaf.

    An object without leaves counts as one: all its tokens. Offsets are taken relative to the first, since an engine
    may count them from the prompt's start. Raises UnableToDraft where the lists do not match.
    """
    if not seen.text_offset or len(seen.text_offset) != len(seen.token_logprobs):
        raise UnableToDraft("malformed")
    starts = [offset - seen.text_offset[0] for offset in seen.text_offset]
    tokens = list(zip(starts, [*starts[1:], len(text)], seen.token_logprobs, strict=True))
    spans = leaf_spans(text) or [(0, len(text))]
    return [[lp for start, end, lp in tokens if start < high and max(end, start + 1) > low] for low, high in spans]


def _evidence(decision: Decision, answer: str | None, *, weakest: float, typical: float, spread: float) -> Evidence:
    return Evidence(
        weakest=_clamp(weakest),
        typical=_clamp(typical),
        spread=max(spread, 0.0),
        similarity=min(max(decision.similarity, -1.0), 1.0),
        neighbour_agreement=_share(decision.neighbours, answer),
        novelty=min(max(decision.novelty, 1e-9), 1.0),
    )


def _share(neighbours: Sequence[tuple[str, float]], answer: str | None) -> float:
    return sum(1 for found, _ in neighbours if found == answer) / len(neighbours) if neighbours else 0.0


def _probability(logprob: float) -> float:
    return exp(min(logprob, 0.0))


def _clamp(value: float) -> float:
    return min(max(value, 0.0), 1.0)
