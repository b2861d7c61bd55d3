"""Holds that a provider which gives no answer is left alone, tried now and then, and taken back at its first answer."""

from serving.core.breaker import (
    CLOSED,
    FAILURES,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Breaker,
    after_failure,
    after_passing,
    seconds_to_wait,
)


def failing(breaker: Breaker, *, times: int, now: float) -> Breaker:
    for _ in range(times):
        breaker = after_failure(breaker, opened=breaker.opened, now=now)
    return breaker


def test_it_opens_after_failures_in_a_row_and_not_before():
    nearly = failing(CLOSED, times=FAILURES - 1, now=100.0)
    assert seconds_to_wait(nearly, now=100.0) == 0.0
    assert seconds_to_wait(failing(nearly, times=1, now=100.0), now=100.5) == FIRST_PAUSE - 0.5


def test_one_probe_passes_at_a_time():
    opened = failing(CLOSED, times=FAILURES, now=0.0)
    assert seconds_to_wait(opened, now=FIRST_PAUSE) == 0.0
    probed = after_passing(opened, now=FIRST_PAUSE)
    assert seconds_to_wait(probed, now=FIRST_PAUSE) == FIRST_PAUSE


def test_each_probe_that_fails_doubles_the_pause_up_to_a_bound():
    breaker, pauses = failing(CLOSED, times=FAILURES, now=0.0), []
    for _ in range(8):
        pauses.append(breaker.pause)
        breaker = failing(after_passing(breaker, now=breaker.until), times=1, now=breaker.until)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, LONGEST_PAUSE]


def test_calls_that_were_on_their_way_when_it_opened_do_not_prolong_the_pause():
    opened = failing(CLOSED, times=FAILURES, now=0.0)
    assert after_failure(opened, opened=0, now=1.0) == opened


def test_a_pause_stays_bounded_however_often_it_opened():
    assert Breaker(opened=10**6).pause == LONGEST_PAUSE


def test_a_closed_one_holds_nobody_up():
    assert after_passing(CLOSED, now=5.0) is CLOSED and seconds_to_wait(CLOSED, now=5.0) == 0.0
