"""Every instant lies in exactly one month."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from billing.core.period import month_of


@given(st.integers(946_684_800, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_an_instant_lies_in_its_month_and_months_join_without_a_gap(at):
    start, end = month_of(at)
    assert start <= at < end
    assert start.day == end.day == 1
    assert month_of(end)[0] == end
    assert month_of(end - timedelta(microseconds=1)) == (start, end)


def test_a_month_is_reckoned_in_utc():
    just_before = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert month_of(just_before)[0] == datetime(2025, 12, 1, tzinfo=UTC)
