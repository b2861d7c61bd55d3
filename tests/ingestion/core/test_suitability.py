"""Which workloads a student is trained for, and the sentence a person reads where none is."""

from dataclasses import replace

import pytest

from ingestion.core.calls import Kind
from ingestion.core.suitability import MAX_LABELS, Figures, judge

ROUTING = Figures(
    kind=Kind.LABEL, pairs=1200, sampled=200, distinct_answers=8, on_template=0.99, stances={"openai": "internal_only"}
)


def test_a_repeated_task_with_enough_answers_is_suitable():
    assert judge(ROUTING, min_pairs=1000).verdict == "suitable"
    assert judge(replace(ROUTING, kind=Kind.JSON, distinct_answers=1200), min_pairs=1000).verdict == "suitable"


def test_too_few_answers_are_not_yet_enough_and_the_missing_ones_are_counted():
    found = judge(replace(ROUTING, pairs=400), min_pairs=1000)
    assert found.verdict == "not_yet" and "600 more" in found.reasons[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kind": Kind.TEXT}, "free text"),
        ({"distinct_answers": MAX_LABELS + 1}, f"More than {MAX_LABELS}"),
        ({"on_template": 0.2}, "Only 20%"),
        ({"stateful": 0.9}, "90% of its calls have the provider keep the answer"),
        ({"stances": {"openai": "forbidden", "anthropic": "allowed"}}, "stated for openai forbid"),
    ],
)
def test_what_no_number_of_calls_would_mend_is_unsuitable_and_says_why(changed, words):
    found = judge(replace(ROUTING, pairs=1, **changed), min_pairs=1000)
    assert found.verdict == "unsuitable" and words in found.reasons[0]
