"""Decides, before any model is asked, who answers a call: no I/O, no clock, and chance only as numbers passed in.

A pre-gate looks at the call alone and returns the reason it must go to the teacher, or None. What the student's own
answer looks like is `accept`'s matter, later.
"""

from functools import lru_cache

import msgspec

from ingestion.core.calls import Arm, Ask, Kind, Unshown
from ingestion.core.templates import extract_query
from serving.core.gates import StudentSpec
from serving.core.snapshot import RouteEntry

_ANSWERING = frozenset({"canary", "ramping", "full"})  # elsewhere a share left over in the snapshot means nothing
_IN_PLAY = _ANSWERING | {"shadow", "held"}


class Route(Unshown, frozen=True):
    """Who is to answer a call and why. `query` is what the student reads, None where it must not be asked.

    `wants_audit`: if the student answers, ask the teacher afterwards. `wants_shadow`: ask the student afterwards.
    `propensity` in (0, 1] is the probability, given the call, with which `arm` was drawn.
    """

    arm: Arm
    reason: str
    query: str | None = None
    wants_audit: bool = False
    wants_shadow: bool = False
    propensity: float = 1.0


def choose(route: RouteEntry, ask: Ask, *, draw: float, audit_draw: float, shadow_draw: float) -> Route:
    """Choose the arm for one call from three independent uniform draws in [0, 1).

    An eligible call is control with `control_share`, the student's with `student_share` of the rest, else the
    teacher's. A call that a pre-gate stops is a fallback where the draw gave it to the student, and the teacher's
    otherwise; it is never control, audited or shadowed.
    """
    spec = route.student
    if spec is None or route.gate is None or route.state not in _IN_PLAY:
        return Route(Arm.TEACHER, "no_student")
    control, student = _shares(route)
    drawn_for_student = control <= draw < control + student
    query = None
    reason = stops_before_query(spec, ask)
    if reason is None:
        query = extract_query(spec.template, ask)
        reason = stops_query(spec, query)
    if reason is not None and drawn_for_student:
        return Route(Arm.FALLBACK, reason, propensity=student)
    if reason is not None:
        return Route(Arm.TEACHER, reason, propensity=1.0 - student)
    if draw < control:
        return Route(Arm.CONTROL, "control", query, wants_shadow=True, propensity=control)
    if drawn_for_student:
        return Route(Arm.STUDENT, "share", query, wants_audit=audit_draw < route.audit_share, propensity=student)
    shadowed = shadow_draw < route.shadow_share
    return Route(Arm.TEACHER, "share", query, wants_shadow=shadowed, propensity=1.0 - control - student)


def stops_before_query(spec: StudentSpec, ask: Ask) -> str | None:
    """The first reason to go to the teacher that shows in the call's form."""
    return (
        many_choices(ask)
        or wants_logprobs(ask)
        or keeps_state(ask)
        or has_media(ask)
        or carries_tool_results(ask)
        or sticky_conversation(ask)
        or unseen_tools(spec, ask)
    )


def stops_query(spec: StudentSpec, query: str | None) -> str | None:
    """The first reason to go to the teacher that shows in the call's variable part."""
    if query is None:
        return template_changed(query)
    return too_long(spec, query) or control_tokens(spec, query)


def many_choices(ask: Ask) -> str | None:
    """A student gives one answer."""
    return "many_choices" if ask.n != 1 else None


def wants_logprobs(ask: Ask) -> str | None:
    """The student's log-probabilities are not the teacher's."""
    return "wants_logprobs" if ask.logprobs else None


def keeps_state(ask: Ask) -> str | None:
    """The provider would be asked for the answer later, by its id, and would not know it."""
    return "keeps_state" if ask.stateful else None


def has_media(ask: Ask) -> str | None:
    """Students read text only."""
    return "has_media" if any(message.has_media for message in ask.messages) else None


def carries_tool_results(ask: Ask) -> str | None:
    """The call continues a tool's work, which no student was trained on."""
    found = any(message.role == "tool" or message.tool_calls for message in ask.messages)
    return "carries_tool_results" if found else None


def sticky_conversation(ask: Ask) -> str | None:
    """A conversation under way stays with whom it began: students answer first turns only."""
    return "sticky_conversation" if any(message.role == "assistant" for message in ask.messages) else None


def unseen_tools(spec: StudentSpec, ask: Ask) -> str | None:
    """The tools on offer, or what the caller demands of them, are not what the student's answers were learnt under.

    A student of another kind never calls a tool, so it declines wherever one may be called. A tool-calling one declines
    unless each tool it may name is on offer and the caller's choice leaves it free to name it.
    """
    if spec.kind != Kind.TOOL_CALL:
        return "unseen_tools" if ask.tools and ask.tool_choice != "none" else None
    known = _tool_names(spec.answer_schema)
    offered = {tool.name for tool in ask.tools}
    allowed = ask.tool_choice in (None, "auto", "required") or known == {ask.tool_choice}
    return None if known and known <= offered and allowed else "unseen_tools"


def template_changed(query: str | None) -> str | None:
    """The constant part of the messages is no longer the one the student was trained without."""
    return "template_changed" if query is None else None


def too_long(spec: StudentSpec, query: str) -> str | None:
    """The query is longer, in characters, than what the student was trained on."""
    return "too_long" if len(query) > spec.max_query_chars else None


def control_tokens(spec: StudentSpec, query: str) -> str | None:
    """The query spells a token that would end its turn inside the student's prompt."""
    return "control_tokens" if any(token in query for token in spec.control_tokens) else None


def _shares(route: RouteEntry) -> tuple[float, float]:
    """The probabilities of control and of student for an eligible call."""
    control = min(max(route.control_share, 0.0), 1.0)
    wanted = route.student_share if route.state in _ANSWERING else 0.0
    return control, (1.0 - control) * min(max(wanted, 0.0), 1.0)


class _Names(msgspec.Struct, frozen=True):
    enum: tuple[str, ...] = ()
    const: str | None = None


class _Properties(msgspec.Struct, frozen=True):
    name: _Names = _Names()


class _CallSchema(msgspec.Struct, frozen=True):
    properties: _Properties = _Properties()


@lru_cache(maxsize=1024)
def _tool_names(answer_schema: str) -> frozenset[str]:
    """The tools a student may name, by the schema its decoding is held to; empty if the schema does not say."""
    try:
        names = msgspec.json.decode(answer_schema, type=_CallSchema).properties.name
    except msgspec.DecodeError:
        return frozenset()
    return frozenset(names.enum if names.const is None else (names.const,))
