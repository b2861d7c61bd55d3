"""What the student learnt from never judges it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.split import Split, assign_splits

rows = st.lists(st.tuples(st.integers(0, 8), st.floats(0, 100)), max_size=40)


def test_the_oldest_train_and_the_newest_calibrate():
    splits = assign_splits(clusters=range(20), at=[float(20 - row) for row in range(20)])
    assert splits == [Split.CALIBRATION] * 5 + [Split.TUNING] * 3 + [Split.TRAIN] * 12


def test_a_later_near_duplicate_is_dropped_and_not_judged_by():
    splits = assign_splits(clusters=[0, 1, 1, 0], at=[1, 2, 3, 4], shares=(0.75, 0, 0.25))
    assert splits == [Split.TRAIN, Split.TRAIN, Split.TRAIN, None]


@given(rows)
def test_no_cluster_is_on_two_sides(rows):
    splits = assign_splits(clusters=[cluster for cluster, _ in rows], at=[at for _, at in rows])
    homes = {(cluster, split) for (cluster, _), split in zip(rows, splits, strict=True) if split is not None}
    assert len(homes) == len({cluster for cluster, _ in homes})


@given(rows)
def test_no_cluster_is_lost(rows):
    splits = assign_splits(clusters=[cluster for cluster, _ in rows], at=[at for _, at in rows])
    kept = {cluster for (cluster, _), split in zip(rows, splits, strict=True) if split is not None}
    assert kept == {cluster for cluster, _ in rows}


@given(rows)
def test_nothing_that_trains_is_newer_than_what_calibrates(rows):
    splits = assign_splits(clusters=[cluster for cluster, _ in rows], at=[at for _, at in rows])
    times = {split: [at for (_, at), its in zip(rows, splits, strict=True) if its is split] for split in Split}
    ordered = [times[split] for split in (Split.TRAIN, Split.TUNING, Split.CALIBRATION) if times[split]]
    assert all(max(older) <= min(newer) for older, newer in pairwise(ordered))


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (-0.5, 0.5, 1.0)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        assign_splits(clusters=[0], at=[0.0], shares=shares)


def test_columns_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="length"):
        assign_splits(clusters=[0, 1], at=[0.0])
