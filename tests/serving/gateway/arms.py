"""The same callers' code against both arms: the teacher answers, then a student who was cast for just those asks."""

import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from pydantic import BaseModel

from ingestion.core.calls import Arm, Dialect, Kind
from serving.core.gates import Rung, StudentSpec
from tests.fakes import obliging
from tests.fakes.encoder import decision
from tests.fakes.obliging import Obliging
from tests.fakes.replica import completion
from tests.serving.gateway.cast import Stage, serve_gateway, student

Code = Callable[[str], object | Awaitable[object]]  # of a caller, given the gateway's URL
PATHS = {
    "/v1/chat/completions": Dialect.OPENAI,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/messages": Dialect.ANTHROPIC,
}


class Report(BaseModel):
    """Reports what is wrong with a shipment."""

    anomaly: str
    line: int


SCHEMA = {
    "type": "object",
    "properties": {"anomaly": {"type": "string"}, "line": {"type": "integer"}},
    "required": ["anomaly", "line"],
    "additionalProperties": False,
}
TOOL_SCHEMA = {"type": "object", "properties": {"name": {"const": "Report"}, "arguments": SCHEMA}}
BY_TEACHER: Mapping[Kind, object] = {
    Kind.LABEL: obliging.WORDS,
    Kind.TOOL_CALL: ("Report", obliging.VALUE),
    Kind.JSON: Report(**obliging.VALUE),
}
BY_STUDENT: Mapping[Kind, object] = {
    Kind.LABEL: "Claim_Damage",
    Kind.TOOL_CALL: ("Report", {"anomaly": "duplicate", "line": 3}),
    Kind.JSON: Report(anomaly="duplicate", line=3),
}
VALUE = [('{"anomaly":"', -0.001), ("duplicate", -0.1), ('","line":', -0.001), ("3", -0.2), ("}", 0.0)]
WRITTEN = {
    Kind.LABEL: [("Claim", -0.01), ("_Damage", -0.002)],
    Kind.TOOL_CALL: [('{"arguments":', 0.0), *VALUE, (',"name":"', 0.0), ("Report", -0.01), ('"}', 0.0)],
    Kind.JSON: VALUE,
}


async def assert_both_arms_answer(stage: Stage, stands, kind: Kind, codes: Mapping[str, Code]) -> None:
    """Each caller gets the teacher's answer while there is no student, and the student's once there is one.

    Those that have "stream" in their name must have streamed.
    """
    provider = Obliging()
    stands["teacher"][0].app = provider
    stage.publish()
    assert await answers(stage, codes) == dict.fromkeys(codes, BY_TEACHER[kind])
    learn(stage, kind, provider)
    assert await answers(stage, codes) == dict.fromkeys(codes, BY_STUDENT[kind])
    assert len(provider.asked) == len(codes)
    streams = ["stream" in name for name in codes]
    assert Counter((record.arm, record.stream) for record in stage.records(2 * len(codes))) == Counter(
        (arm, stream) for arm in (Arm.TEACHER, Arm.STUDENT) for stream in streams
    )


async def answers(stage: Stage, codes: Mapping[str, Code]) -> dict[str, object]:
    found = {}
    with serve_gateway(stage) as gateway:
        for name, code in codes.items():
            got = code(gateway.url)
            found[name] = await got if inspect.isawaitable(got) else got
    return found


def learn(stage: Stage, kind: Kind, provider: Obliging) -> None:
    """Cast a student for what the provider was asked."""
    spec = specimen(kind)
    stage.encoder.decisions[spec.adapter] = decision("x", rung="lora")
    stage.replica.completions[spec.adapter] = completion(WRITTEN[kind])
    stage.cast_student(spec, *((json.loads(body), PATHS[path]) for path, body in provider.asked))


def specimen(kind: Kind) -> StudentSpec:
    schema = {Kind.LABEL: None, Kind.TOOL_CALL: TOOL_SCHEMA, Kind.JSON: SCHEMA}[kind]
    return student(rung=Rung.LORA, kind=kind, schema=json.dumps(schema) if schema else "")
