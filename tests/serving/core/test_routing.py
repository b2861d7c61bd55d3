"""Holds the routing to its promises: no strange call reaches a student, and draws are what they claim."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ingestion.core.calls import Arm, Ask, Dialect, Message, Tool, ToolCall
from serving.core.gates import Acceptor, Gate, Rung, StudentSpec, Template
from serving.core.routing import choose
from serving.core.snapshot import RouteEntry

SYSTEM = "Classify the ticket."
LOOKUP = Tool("lookup", "{}")
CALL_SCHEMA = '{"type":"object","properties":{"arguments":{"type":"object"},"name":{"enum":["lookup","refund"]}}}'
shares = st.floats(0, 1)


def test_an_eligible_call_that_the_draw_gives_to_the_student_goes_there_with_its_query():
    route = choose(entry(), ask(), draw=0.5, audit_draw=0.9, shadow_draw=0.9)
    assert (route.arm, route.query, route.wants_audit, route.wants_shadow) == (
        Arm.STUDENT,
        "my card broke",
        False,
        False,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 2}, "many_choices"),
        ({"logprobs": True}, "wants_logprobs"),
        ({"messages": (Message("user", "Ticket: my card broke", has_media=True),)}, "has_media"),
        ({"messages": (Message("user", "hi"), Message("tool", "42"))}, "carries_tool_results"),
        (
            {"messages": (Message("user", "hi"), Message("assistant", "", tool_calls=(ToolCall("f", "{}"),)))},
            "carries_tool_results",
        ),
        (
            {"messages": (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "Ticket: x"))},
            "sticky_conversation",
        ),
        ({"stateful": True}, "keeps_state"),
        ({"tools": (LOOKUP,)}, "unseen_tools"),
        ({"messages": (Message("system", "Be rude."), Message("user", "Ticket: x"))}, "template_changed"),
        ({"messages": (Message("system", SYSTEM), Message("user", "Invoice: x"))}, "template_changed"),
        ({"messages": (Message("system", SYSTEM), Message("user", "Ticket: " + "x" * 101))}, "too_long"),
        ({"messages": (Message("system", SYSTEM), Message("user", "Ticket: a<|end|>b"))}, "control_tokens"),
    ],
)
def test_a_call_outside_what_the_student_was_trained_on_goes_to_the_teacher(change, reason):
    for draw in (0.0, 0.02, 0.5, 0.99):
        route = choose(entry(control_share=0.01), replace(ask(), **change), draw=draw, audit_draw=0.0, shadow_draw=0.0)
        assert route.arm in (Arm.FALLBACK, Arm.TEACHER)
        assert (route.reason, route.query, route.wants_audit, route.wants_shadow) == (reason, None, False, False)


@pytest.mark.parametrize(
    ("tools", "choice", "goes"),
    [
        (("lookup", "refund"), None, True),
        (("lookup", "refund", "extra"), "auto", True),
        (("lookup", "refund"), "required", True),
        (("lookup",), "auto", False),
        ((), None, False),
        (("lookup", "refund"), "none", False),
        (("lookup", "refund"), "lookup", False),
    ],
)
def test_a_tool_calling_student_is_asked_only_where_it_may_call_each_tool_it_knows(tools, choice, goes):
    wanted = replace(ask(), tools=tuple(Tool(name, "{}") for name in tools), tool_choice=choice)
    spec = student(kind="tool_call", answer_schema=CALL_SCHEMA)
    route = choose(entry(student=spec), wanted, draw=0.5, audit_draw=0.9, shadow_draw=0.9)
    assert (route.arm is Arm.STUDENT) == goes


@pytest.mark.parametrize("schema", ["", "{", '{"type":"object"}', '{"properties":{"name":{"type":"string"}}}', "[]"])
def test_a_tool_calling_student_whose_tools_are_unknown_is_never_asked(schema):
    wanted = replace(ask(), tools=(LOOKUP,))
    spec = student(kind="tool_call", answer_schema=schema)
    assert choose(entry(student=spec), wanted, draw=0.5, audit_draw=0.9, shadow_draw=0.9).reason == "unseen_tools"


def test_a_student_of_another_kind_may_answer_where_the_caller_forbids_tools():
    wanted = replace(ask(), tools=(LOOKUP,), tool_choice="none")
    assert choose(entry(), wanted, draw=0.5, audit_draw=0.9, shadow_draw=0.9).arm is Arm.STUDENT


@pytest.mark.parametrize("change", [{"student": None}, {"gate": None}, {"state": "rolled_back"}, {"state": ""}])
def test_without_a_student_in_play_the_teacher_answers_and_nothing_is_marked(change):
    route = choose(entry(control_share=0.5, **change), ask(), draw=0.2, audit_draw=0.0, shadow_draw=0.0)
    assert (route.arm, route.wants_audit, route.wants_shadow, route.propensity) == (Arm.TEACHER, False, False, 1.0)


@pytest.mark.parametrize("state", ["shadow", "held", "rolled_back", "unheard_of"])
@given(draw=st.floats(0, 1, exclude_max=True))
def test_a_share_left_over_outside_a_serving_state_never_reaches_the_student(state, draw):
    route = choose(entry(state=state), ask(), draw=draw, audit_draw=0.0, shadow_draw=0.0)
    assert route.arm not in (Arm.STUDENT, Arm.FALLBACK)


@settings(deadline=None)
@given(shares, shares, st.booleans())
def test_each_arm_is_drawn_as_often_as_its_propensity_says(control, share, eligible):
    entry_ = entry(control_share=control, student_share=share)
    wanted = ask() if eligible else replace(ask(), n=2)
    draws = [(index + 0.5) / 1000 for index in range(1000)]
    routes = [choose(entry_, wanted, draw=draw, audit_draw=0.9, shadow_draw=0.9) for draw in draws]
    for arm in {route.arm for route in routes}:
        propensities = {route.propensity for route in routes if route.arm is arm}
        assert len(propensities) == 1
        assert abs(propensities.pop() - sum(route.arm is arm for route in routes) / 1000) <= 0.0021


def test_control_calls_are_always_shadowed_and_other_eligible_ones_by_their_share():
    route = entry(control_share=0.1, student_share=0.0, shadow_share=0.3)
    assert choose(route, ask(), draw=0.05, audit_draw=0.9, shadow_draw=0.99).wants_shadow
    assert choose(route, ask(), draw=0.05, audit_draw=0.9, shadow_draw=0.99).arm is Arm.CONTROL
    assert choose(route, ask(), draw=0.5, audit_draw=0.9, shadow_draw=0.29).wants_shadow
    assert not choose(route, ask(), draw=0.5, audit_draw=0.9, shadow_draw=0.3).wants_shadow


def test_student_answers_are_audited_by_their_share():
    route = entry(audit_share=0.2)
    assert choose(route, ask(), draw=0.5, audit_draw=0.19, shadow_draw=0.0).wants_audit
    assert not choose(route, ask(), draw=0.5, audit_draw=0.2, shadow_draw=0.0).wants_audit


def test_a_route_never_shows_the_query():
    assert "card" not in repr(choose(entry(), ask(), draw=0.5, audit_draw=0.9, shadow_draw=0.9))


def ask():
    messages = (Message("system", SYSTEM), Message("user", "Ticket: my card broke"))
    return Ask(dialect=Dialect.OPENAI, model="gpt-4o", messages=messages, raw=b"{}")


def student(**change):
    spec = StudentSpec(
        adapter="tickets-3",
        rung=Rung.HEAD,
        kind="label",
        template=Template(system=SYSTEM, prefix="Ticket: "),
        control_tokens=("<|end|>",),
        max_query_chars=100,
    )
    return msgspec.structs.replace(spec, **change)


def entry(**change):
    acceptor = Acceptor(mean=(0.0,) * 6, scale=(1.0,) * 6, weights=(1.0,) * 6, bias=0.0)
    values = {
        "workload_id": "w",
        "kind": "label",
        "state": "full",
        "student_share": 1.0,
        "student": student(),
        "gate": Gate(acceptor=acceptor, threshold=0.5),
    }
    return RouteEntry(**{**values, **change})
