"""Of a workload's calls the content of a share is kept: the facts of every call, and whatever a comparison needs."""

import msgspec

from ingestion.core.calls import Dialect
from tests.fakes.encoder import decision
from tests.serving.gateway.cast import WORKLOAD, openai_ask, post, serve_gateway, student


async def ask_often(stage, times: int):
    with serve_gateway(stage) as gateway:
        for _ in range(times):
            assert (await post(gateway.url, json=openai_ask())).status == 200
    return stage.records(times)


def say_share(stage, share: float, **changes) -> None:
    stage.encoder.decisions["routing-head-7"] = decision("track_shipment")
    stage.cast_student(student(), (openai_ask(), Dialect.OPENAI), log_share=share, **changes)


async def test_of_nothing_the_facts_are_kept(stage):
    say_share(stage, 0.0, state="held")
    records = await ask_often(stage, 5)
    assert not any(record.request_sealed or record.response_sealed for record in records)
    assert all((record.workload_id, record.output_tokens, record.status) == (WORKLOAD, 4, 200) for record in records)


async def test_of_a_half_about_a_half_is_kept_and_each_whole(stage):
    say_share(stage, 0.5, state="held")
    records = await ask_often(stage, 60)
    kept = [record for record in records if record.request_sealed]
    assert 8 < len(kept) < 52 and all(record.response_sealed for record in kept)


async def test_what_audits_compare_is_kept(stage):
    say_share(stage, 0.0, audit_share=1.0)
    (record,) = await ask_often(stage, 1)
    assert record.arm == "student" and record.wants_audit and record.request_sealed
    for name, entry in stage.routes.items():
        stage.routes[name] = msgspec.structs.replace(entry, student_share=0.0, control_share=1.0)
    stage.publish()
    with serve_gateway(stage) as gateway:
        await post(gateway.url, json=openai_ask())
    control = max(stage.records(2), key=lambda one: one.at)
    assert control.arm == "control" and control.wants_shadow and control.request_sealed
