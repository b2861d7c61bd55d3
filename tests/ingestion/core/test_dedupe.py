"""Rows that are almost the same text are found, and rows that are not are left alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.core.dedupe import cluster_near_duplicates

LONG = "I was charged twice for the same card payment yesterday and would like my money back please"


def test_case_punctuation_and_a_changed_word_make_no_new_text():
    texts = [LONG, LONG.upper() + "!", LONG.replace("yesterday", "yesterdays"), "Where is my card?", LONG]
    assert cluster_near_duplicates(texts) == [0, 0, 0, 1, 0]


def test_short_texts_that_differ_stay_apart():
    assert cluster_near_duplicates(["yes", "no", "", "!", "?", "yes."]) == [0, 1, 2, 3, 4, 0]


def test_what_two_rows_share_with_a_third_joins_all_three():
    words = LONG.split()
    chain = [" ".join(words[start : start + 14]) for start in range(3)]
    assert len(set(cluster_near_duplicates(chain, threshold=0.75))) == 1


@pytest.mark.parametrize("threshold", [0, -1, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        cluster_near_duplicates(["a"], threshold=threshold)


@settings(max_examples=30)
@given(st.lists(st.text(max_size=20), max_size=12))
def test_equal_rows_share_a_cluster_and_ids_count_up(texts):
    clusters = cluster_near_duplicates(texts)
    firsts = list(dict.fromkeys(clusters))
    assert firsts == list(range(len(firsts)))
    assert len({(text, cluster) for text, cluster in zip(texts, clusters, strict=True)}) == len(set(texts))
