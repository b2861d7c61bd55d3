"""Holds the demo's grammars to what the demo rests on: the expert is always right, and no query comes twice."""

import json
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.grammar.odd import OVERSIZED_CHARACTERS, draw_odd, draw_oversized
from demo.grammar.sampling import SEEDS, UnableToPartition, draw_samples, partition_of
from demo.workloads import WORKLOADS

EVERY = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())


@EVERY
def test_the_expert_reads_every_clear_query_as_it_was_meant(workload):
    rng = Random(20)
    clear = [sample for sample in (workload.draw(rng) for _ in range(5000)) if not sample.ambiguous]
    assert len(clear) >= 4900
    assert [sample for sample in clear if workload.read(sample.query) != sample.answer] == []


@EVERY
def test_ambiguous_queries_are_rare_and_always_answered_the_same_way(workload):
    rng = Random(21)
    ambiguous = [sample for sample in (workload.draw(rng) for _ in range(5000)) if sample.ambiguous]
    assert 0 < len(ambiguous) <= 50, "at most one in a hundred"
    assert all(workload.read(sample.query) == sample.answer for sample in ambiguous)


@EVERY
def test_two_seeds_share_no_query_and_one_seed_repeats_none(workload):
    first = [sample.query for sample in islice(draw_samples(workload, seed=3), 400)]
    second = [sample.query for sample in islice(draw_samples(workload, seed=4), 400)]
    assert len({query.casefold() for query in first}) == 400
    assert {partition_of(query) for query in first} == {3}
    assert {partition_of(query) for query in second} == {4}


@EVERY
def test_the_same_seed_gives_the_same_queries(workload):
    assert list(islice(draw_samples(workload, seed=5), 20)) == list(islice(draw_samples(workload, seed=5), 20))


@EVERY
def test_the_grammar_is_wide_enough_for_a_hundred_thousand_queries(workload):
    rng = Random(22)
    queries = {workload.draw(rng).query for _ in range(3000)}
    # With N equally likely queries, 3,000 draws collide about 3000**2 / 2N times: 45 or fewer speak for N > 100,000.
    assert len(queries) >= 3000 - 45


def test_a_seed_beyond_the_partitions_is_refused():
    with pytest.raises(UnableToPartition):
        next(draw_samples(WORKLOADS["routing"], seed=SEEDS))


def test_two_of_the_routing_labels_are_rare():
    rng = Random(23)
    labels = [WORKLOADS["routing"].draw(rng).answer for _ in range(4000)]
    for rare in ("customs_documents", "quote_request"):
        assert 0.01 < labels.count(rare) / len(labels) < 0.045
    assert len(set(labels)) == 8


@EVERY
def test_an_odd_query_gets_a_defined_answer(workload):
    rng = Random(24)
    nothing = {
        "routing": "other",
        "exceptions": "none",
        "clauses": json.dumps(dict.fromkeys(("clause_type", "party", "amount", "currency", "days"))),
        "invoices": json.dumps({"anomaly": "not_an_invoice", "line": 0}),
    }
    short = [sample for sample in (draw_odd(workload, rng) for _ in range(300)) if len(sample.query) < 2000]
    assert len(short) > 200
    assert {sample.answer for sample in short} == {nothing[workload.name]}


@EVERY
def test_an_oversized_query_is_still_read_rightly(workload):
    sample = draw_oversized(workload, Random(25))
    assert len(sample.query) >= OVERSIZED_CHARACTERS
    assert workload.read(sample.query) == sample.answer


@EVERY
@given(text=st.text(max_size=300))
def test_the_expert_has_an_answer_to_any_text(workload, text):
    assert workload.read(text) == workload.read(text)


@EVERY
def test_a_system_prompt_is_as_long_as_real_ones(workload):
    assert 80 <= len(workload.system.split()) <= 200
