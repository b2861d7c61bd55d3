"""Holds that the demo's live traffic goes where a rollout still needs audits, so that nobody watches it for nothing."""

from pytest import approx

from demo.story import AT_FULL, _weigh


def rollout(workload_id, state, *, step_accepted=0, coverage=1.0):
    audits = {"step_accepted": step_accepted, "coverage": coverage}
    return {"workload_id": workload_id, "state": state, "audits": audits}


def test_what_a_step_still_needs_is_asked_for_and_a_student_at_full_is_kept_busy():
    ids = {"routing": "a", "clauses": "b", "invoices": "c"}
    weights = _weigh(
        [
            rollout("a", "full"),
            rollout("b", "canary", step_accepted=50, coverage=0.5),
            rollout("c", "canary", step_accepted=50),
        ],
        ids,
    )
    assert weights["routing"] == AT_FULL
    assert weights["clauses"] - AT_FULL == approx(2 * (weights["invoices"] - AT_FULL))
    assert weights["clauses"] > 100


def test_before_the_answers_have_said_which_workload_is_which_all_are_asked_evenly():
    assert _weigh([rollout("a", "shadow"), rollout("b", "shadow")], {"routing": "a"}) == {}


def test_a_workload_without_a_rollout_is_not_asked_any_more():
    assert set(_weigh([rollout("a", "shadow", coverage=0.0)], {"routing": "a", "clauses": "b"})) == {"routing"}
