"""What is read off a student's answer: the numbers that the gate is certified on."""

import asyncio
import json
import time
from math import exp, log

import aiohttp
import pytest

from ingestion.core.calls import Kind
from ingestion.core.templates import Template
from serving.core.gates import Draft, Rung, StudentSpec
from serving.student import Logprobs, UnableToDraft, complete, draft, tokens_by_leaf
from tests.fakes.encoder import Encoder, decision
from tests.fakes.replica import Replica, completion
from tests.fakes.serve import Served

SCHEMA = '{"type":"object","properties":{"days":{"type":"integer"},"party":{"type":"string"}}}'


def spec(*, rung: Rung = Rung.LORA, kind: Kind = Kind.LABEL) -> StudentSpec:
    return StudentSpec(
        adapter="a-1",
        rung=rung,
        kind=kind,
        template=Template(),
        labels=("Late", "lost") if kind is Kind.LABEL else (),
        answer_schema="" if kind is Kind.LABEL else SCHEMA,
        prompt_prefix="<",
        prompt_suffix=">",
        control_tokens=("<eos>",),
    )


def ask(
    asked: StudentSpec,
    *,
    said: dict | None = None,
    known: dict | None = None,
    query: str = "q",
    fault: str = "",
    timeout: float = 30.0,
) -> Draft:
    """One draft, over real sockets; `timeout` is seconds."""
    encoder = Encoder({"a-1": known or decision("late", rung=asked.rung)})
    replica = Replica({"a-1": said} if said else {}, fault=fault)

    async def go(encoder_url: str, vllm_url: str) -> Draft:
        async with aiohttp.ClientSession() as http:
            return await draft(
                asked, query, http=http, encoder_url=encoder_url, vllm_url=vllm_url, salt="s", timeout=timeout
            )

    with Served(encoder) as one, Served(replica) as two:
        return asyncio.run(go(one.url, two.url))


def test_a_heads_evidence_is_its_probabilities():
    known = decision("Late", sure=0.9)
    known["neighbours"] = [["late", 0.9]] * 3 + [["lost", 0.8]] * 2
    made = ask(spec(rung=Rung.HEAD), known=known)
    seen = made.evidence
    assert (made.answer, made.input_tokens) == ("late", 0)
    assert (seen.weakest, seen.spread, seen.similarity, seen.novelty) == (0.9, 0.1, 0.9, 0.6)
    assert (round(seen.typical, 9), seen.neighbour_agreement) == (0.8, 0.6)


def test_a_labels_probability_is_the_product_over_all_its_tokens_and_the_margin_the_least():
    made = ask(spec(), said=completion([("La", log(0.8)), ("te", log(0.9))], runner_up=log(0.1)))
    seen = made.evidence
    assert made.answer == "late"
    assert seen.weakest == pytest.approx(0.72 * exp(-0.0001))  # the end counts too: it tells "late" from "late fee"
    assert seen.typical == pytest.approx(0.7)
    assert seen.spread == pytest.approx(-(0.8 * log(0.8) + 0.1 * log(0.1)))
    assert (made.input_tokens, made.output_tokens, seen.neighbour_agreement) == (17, 3, 1.0)


def test_a_json_answers_evidence_is_its_least_sure_field():
    tokens = [('{"days', -3.0), ('":', 0.0), (" 3", log(0.9)), ("0", log(0.8)), (',"party":"', -2.0)]
    tokens += [("Ac", log(0.5)), ("me", log(0.9)), ('"}', -1.0)]
    made = ask(spec(kind=Kind.JSON), said=completion(tokens))
    assert json.loads(made.answer) == {"days": 30, "party": "Acme"}
    assert made.evidence.weakest == pytest.approx(0.45)
    assert made.evidence.typical == pytest.approx((0.9 + 0.8 + 0.5 + 0.9) / 4)
    assert made.evidence.spread == 0.0


def test_a_token_that_straddles_a_fields_edge_counts_for_the_field():
    text = '{"a":"xy"}'
    seen = Logprobs(token_logprobs=[-1.0, -2.0, -4.0], text_offset=[100, 105, 107], top_logprobs=[])
    assert tokens_by_leaf(text, seen) == [[-2.0, -4.0]]


def test_a_field_no_token_was_seen_for_is_unsure():
    said = completion([('{"days":1,"party":"x"}', 0.0)])
    said["choices"][0]["logprobs"]["text_offset"] = [0, 40]
    said["choices"][0]["logprobs"]["token_logprobs"] = [0.0, 0.0]
    assert ask(spec(kind=Kind.JSON), said=said).evidence.weakest == 1.0
    said["choices"][0]["logprobs"] = {"token_logprobs": [0.0], "text_offset": [0, 1], "top_logprobs": []}
    with pytest.raises(UnableToDraft, match="malformed"):
        ask(spec(kind=Kind.JSON), said=said)


@pytest.mark.parametrize("said", ["not json", '{"days": ', "[1]"])
def test_what_is_not_of_the_kind_is_a_malformed_answer_with_its_tokens_counted(said):
    made = ask(spec(kind=Kind.JSON), said=completion([(said, 0.0)]))
    assert (made.answer, made.output_tokens, made.evidence.weakest) == (None, 2, 0.0)


def test_a_query_with_a_control_token_reaches_no_replica():
    with pytest.raises(UnableToDraft, match="control_tokens"):
        ask(spec(), query="a <eos> b")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("failing", "vllm_down"), ("malformed", "malformed"), ("too_long", "refused"), ("", "adapter_missing")],
)
def test_what_ails_the_engine_has_one_word(fault, reason):
    with pytest.raises(UnableToDraft) as failed:
        ask(spec(), said=completion([("late", 0.0)]) if fault else None, fault=fault)
    assert failed.value.reason == reason


def test_the_engines_bare_answer_is_canonical_and_a_truncated_one_is_none():
    replica = Replica({"a-1": completion([("La", -0.1), ("te.", -0.1)])})

    async def go(url: str) -> str | None:
        async with aiohttp.ClientSession() as http:
            return await complete(spec(), "q", http=http, vllm_url=url, salt="s", timeout=5)

    with Served(replica) as engine:
        assert asyncio.run(go(engine.url)) == "late"
        replica.completions["a-1"] = completion([("La", -0.1)], finish="length")
        assert asyncio.run(go(engine.url)) is None


def test_a_late_engine_is_given_up_in_time():
    started = time.monotonic()
    with pytest.raises(UnableToDraft, match="timeout"):
        ask(spec(), said=completion([("late", 0.0)]), fault="late", timeout=0.5)
    assert time.monotonic() - started < 5


def test_out_of_range_numbers_of_a_replica_are_clamped():
    known = decision("late", sure=1.5, novelty=0.0, rung="head") | {"similarity": 1.0001, "entropy": -1e-9}
    seen = ask(spec(rung=Rung.HEAD), known=known).evidence
    assert (seen.weakest, seen.similarity, seen.spread) == (1.0, 1.0, 0.0)
    assert 0 < seen.novelty < 1e-6
