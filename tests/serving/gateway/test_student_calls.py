"""When the student answers, and how the teacher answers whenever it does not."""

import json
import logging
import time

import pytest

from ingestion.core.calls import Arm, Dialect, Kind
from serving.core.deadline import FEWEST, FLOOR
from serving.core.gates import Rung
from tests.fakes.encoder import decision
from tests.fakes.replica import completion
from tests.fakes.teacher import TEXT
from tests.serving.gateway.cast import (
    OWNER,
    PLAIN,
    WORKLOAD,
    anthropic_ask,
    claude_at,
    down,
    openai_ask,
    opened,
    serve_gateway,
    student,
    talk_to,
)

TOOL = {"type": "object", "properties": {"anomaly": {"type": "string"}, "line": {"type": "integer"}}}
TOOL_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"enum": ["report"]}, "arguments": TOOL},
        "required": ["name", "arguments"],
    }
)
CALLED = completion(
    [
        ('{"arguments":{"anomaly":"', -0.001),
        ("duplicate", -0.1),
        ('","line":', -0.001),
        ("3", -0.2),
        ('},"name":"', 0.0),
        ("report", -0.01),
        ('"}', 0.0),
    ]
)


@pytest.fixture
def head(stage):
    """A stage whose workload belongs to a head student, before any gateway runs."""
    stage.encoder.decisions["routing-head-7"] = decision("claim_damage")
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI), (anthropic_ask(), Dialect.ANTHROPIC))
    return stage


@pytest.fixture
def lora(stage):
    """A stage whose workload belongs to a LoRA student."""
    stage.encoder.decisions["routing-lora-7"] = decision("claim_damage", rung="lora")
    stage.replica.completions["routing-lora-7"] = completion([("Claim", -0.01), ("_Damage", -0.002)])
    stage.cast_student(student(rung=Rung.LORA), (openai_ask(), Dialect.OPENAI))
    return stage


def ask_at(url: str, key: str = PLAIN.plain, **ask):
    with talk_to(url, key=key) as talk:
        return talk.chat.completions.with_raw_response.create(**openai_ask(**ask))


def test_a_sure_student_answers_in_the_callers_own_words_for_the_label(head):
    with serve_gateway(head) as gateway:
        answer = ask_at(gateway.url)
    assert answer.parse().choices[0].message.content == "Claim_Damage"
    assert answer.headers["x-understudy-arm"] == "student"
    assert answer.headers["x-understudy-workload"] == WORKLOAD
    assert answer.headers["x-understudy-adapter"] == "routing-head-7"
    assert head.teacher.seen == []
    record = head.record()
    assert (record.arm, record.reason, record.adapter, record.wants_audit) == (
        Arm.STUDENT,
        "accepted",
        "routing-head-7",
        True,
    )
    assert (record.novelty, record.propensity, record.workload_id) == (0.6, 1.0, WORKLOAD)
    assert record.score > 0.9 and record.student_ms > 0
    assert json.loads(opened(record, "response"))["choices"][0]["message"]["content"] == "Claim_Damage"


def test_a_student_streams_to_who_asked_for_a_stream(head):
    with serve_gateway(head) as gateway:
        with talk_to(gateway.url) as talk:
            stream = talk.chat.completions.create(**openai_ask(), stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        with claude_at(gateway.url) as claude:
            with claude.messages.stream(**anthropic_ask()) as told:
                assert told.get_final_text() == text == "Claim_Damage"
            assert claude.messages.create(**anthropic_ask()).content[0].text == "Claim_Damage"
    assert [record.stream for record in head.records(3)] == [True, True, False]
    assert head.teacher.seen == []


def test_a_lora_student_is_asked_with_the_exact_prompt_of_its_training_and_nothing_else(lora):
    with serve_gateway(lora) as gateway:
        answer = ask_at(gateway.url, temperature=1.7, seed=4, user="someone")
    assert answer.parse().choices[0].message.content == "Claim_Damage"
    (asked,) = lora.replica.asked
    assert asked.pop("structured_outputs") == {"choice": ["track_shipment", "Claim_Damage", "other"]}
    assert asked == {
        "model": "routing-lora-7",
        "prompt": "<|im_start|>user\nrouting\nWhere is my parcel 4711?<|im_end|>\n<|im_start|>assistant\n",
        "max_tokens": 64,
        "temperature": 0,
        "logprobs": 2,
        "cache_salt": "salt-of-one",
        "add_special_tokens": False,
    }
    record = lora.record()
    assert (record.student_input_tokens, record.student_output_tokens) == (17, 3)
    assert len(record.subject_hmac) == 64 and "someone" not in record.subject_hmac


def test_a_tool_calling_student_calls_the_tool(stage):
    tools = [{"type": "function", "function": {"name": "report", "parameters": TOOL}}]
    stage.encoder.decisions["routing-lora-7"] = decision(rung="lora")
    stage.replica.completions["routing-lora-7"] = CALLED
    spec = student(rung=Rung.LORA, kind=Kind.TOOL_CALL, schema=TOOL_SCHEMA)
    stage.cast_student(spec, (openai_ask(tools=tools), Dialect.OPENAI))
    with serve_gateway(stage) as gateway:
        answer = ask_at(gateway.url, tools=tools)
    called = answer.parse().choices[0].message.tool_calls[0].function
    assert (called.name, json.loads(called.arguments)) == ("report", {"anomaly": "duplicate", "line": 3})
    assert stage.replica.asked[0]["structured_outputs"] == {"json": json.loads(TOOL_SCHEMA)}


@pytest.mark.parametrize(
    ("part", "fault", "reason"),
    [
        ("encoder", "failing", "encoder_down"),
        ("encoder", "late", "timeout"),
        ("encoder", "malformed", "malformed"),
        ("replica", "failing", "vllm_down"),
        ("replica", "late", "timeout"),
        ("replica", "malformed", "malformed"),
    ],
)
def test_whatever_ails_the_student_the_teacher_answers(lora, part, fault, reason):
    getattr(lora, part).fault = fault
    with serve_gateway(lora) as gateway:
        answer = ask_at(gateway.url)
    assert answer.parse().choices[0].message.content == TEXT
    assert answer.headers["x-understudy-arm"] == "fallback"
    assert "x-understudy-adapter" not in answer.headers
    record = lora.record()
    assert (record.arm, record.reason, record.adapter) == (Arm.FALLBACK, reason, "routing-lora-7")
    assert (record.wants_audit, record.wants_shadow) == (False, False)


def test_a_student_that_was_quick_and_hangs_is_not_waited_for_as_long_as_one_that_nobody_knows(lora):
    with serve_gateway(lora, student_timeout=25) as gateway, talk_to(gateway.url) as talk:
        for _ in range(FEWEST):
            talk.chat.completions.create(**openai_ask())
        lora.replica.fault = "late"
        started = time.monotonic()
        answer = talk.chat.completions.create(**openai_ask())
        waited = time.monotonic() - started
    assert answer.choices[0].message.content == TEXT
    assert FLOOR <= waited < 20  # a busy machine is slow, but its drafts were slow then too
    records = lora.records(FEWEST + 1)
    assert [record.reason for record in records] == ["accepted"] * FEWEST + ["timeout"]


@pytest.mark.parametrize(("part", "reason"), [("encoder", "encoder_down"), ("replica", "vllm_down")])
def test_a_replica_that_is_down_sends_the_call_to_the_teacher(lora, part, reason):
    lora.urls[part] = down()
    lora.publish()
    with serve_gateway(lora) as gateway:
        assert ask_at(gateway.url).parse().choices[0].message.content == TEXT
    assert lora.record().reason == reason


@pytest.mark.parametrize("part", ["encoder", "replica"])
def test_an_adapter_that_is_not_loaded_sends_the_call_to_the_teacher(lora, part):
    (lora.encoder.decisions if part == "encoder" else lora.replica.completions).clear()
    with serve_gateway(lora) as gateway:
        assert ask_at(gateway.url).parse().choices[0].message.content == TEXT
    assert lora.record().reason == "adapter_missing"


def test_a_truncated_draft_is_not_used_but_its_tokens_are_counted(lora):
    lora.replica.completions["routing-lora-7"] = completion([("Claim", 0.0)], finish="length")
    with serve_gateway(lora) as gateway:
        assert ask_at(gateway.url).parse().choices[0].message.content == TEXT
    record = lora.record()
    assert (record.reason, record.student_input_tokens, record.student_output_tokens) == ("malformed", 17, 1)


@pytest.mark.parametrize(("threshold", "novelty", "reason"), [(0.999, 0.6, "unsure"), (0.5, 0.001, "novel")])
def test_a_gate_that_says_no_sends_the_call_to_the_teacher(head, threshold, novelty, reason):
    head.encoder.decisions["routing-head-7"] = decision("claim_damage", novelty=novelty)
    head.cast_student(student(), (openai_ask(), Dialect.OPENAI), threshold=threshold)
    with serve_gateway(head) as gateway:
        assert ask_at(gateway.url).parse().choices[0].message.content == TEXT
    record = head.record()
    assert (record.arm, record.reason, record.novelty) == (Arm.FALLBACK, reason, novelty)
    assert record.score is not None and record.student_ms > 0


def test_a_bug_in_a_gate_is_not_the_tenants_failure(head, caplog):
    gate = head.routes[next(iter(head.routes))].gate
    broken = type(gate)(acceptor=type(gate.acceptor)(mean=(), scale=(), weights=(), bias=0.0), threshold=0.5)
    head.cast_student(student(), (openai_ask(), Dialect.OPENAI), gate=broken)
    with caplog.at_level(logging.INFO), serve_gateway(head) as gateway:
        assert ask_at(gateway.url).parse().choices[0].message.content == TEXT
    assert head.record().reason == "student_broke"
    assert "parcel" not in caplog.text


def test_a_control_call_goes_to_the_teacher_and_is_marked_for_the_student(head):
    head.cast_student(student(), (openai_ask(), Dialect.OPENAI), control_share=1.0)
    with serve_gateway(head) as gateway:
        assert ask_at(gateway.url).headers["x-understudy-arm"] == "control"
    record = head.record()
    assert (record.arm, record.wants_shadow, record.wants_audit) == (Arm.CONTROL, True, False)
    assert head.encoder.asked == []


def test_control_tokens_in_a_query_never_reach_the_student(lora):
    with serve_gateway(lora) as gateway:
        ask_at(gateway.url, query="x <|im_end|> y")
    assert (lora.record().reason, lora.replica.asked) == ("control_tokens", [])


def test_only_a_key_that_may_override_can_force_the_teacher(head):
    wish = {"x-understudy-arm": "teacher"}
    with serve_gateway(head) as gateway:
        arms = [
            ask_at(gateway.url, key.plain, extra_headers=wish).headers["x-understudy-arm"] for key in (OWNER, PLAIN)
        ]
    assert arms == ["teacher", "student"]
    assert [record.reason for record in head.records(2)] == ["override", "accepted"]


def test_only_a_key_that_may_override_can_switch_the_log_off_and_then_the_teacher_answers(head):
    wish = {"x-understudy-log": "off"}
    with serve_gateway(head) as gateway:
        for key in (OWNER, PLAIN):
            ask_at(gateway.url, key.plain, extra_headers=wish)
    unlogged, logged = head.records(2)
    assert (unlogged.arm, unlogged.reason) == (Arm.TEACHER, "log_off")
    assert (unlogged.request_sealed, unlogged.response_sealed, unlogged.output_tokens) == (None, None, 4)
    assert logged.request_sealed is not None


def test_a_tenant_without_content_logging_leaves_no_bodies_in_the_spool(head):
    head.publish(log_content=False)
    with serve_gateway(head) as gateway:
        ask_at(gateway.url)
    record = head.record()
    assert (record.request_sealed, record.response_sealed, record.arm) == (None, None, Arm.TEACHER)
