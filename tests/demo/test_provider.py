"""Holds that a real provider takes the stand-in's place in any dialect it speaks, or that it is said why it cannot."""

from dataclasses import replace
from random import Random
from time import time

import pytest

from demo.provider import UnableToUse, real_provider
from demo.teacher import Manner, Teacher
from demo.traffic import Plan, send
from tests.demo.servers import CREDENTIAL
from tests.fakes.serve import Served, free_port


def served(*dialects: str) -> Served:
    return Served(Teacher(Manner(CREDENTIAL, 0.0, dialects), rng=Random(1), clock=time))


def named(url: str, key: str = CREDENTIAL, **more: str) -> dict[str, str]:
    return {"TEACHER_BASE_URL": url, "TEACHER_API_KEY": key, **more}


def test_without_a_name_there_is_none():
    assert real_provider({}) is None and real_provider({"TEACHER_BASE_URL": "", "TEACHER_API_KEY": ""}) is None


@pytest.mark.parametrize("missing", ["TEACHER_BASE_URL", "TEACHER_API_KEY"])
def test_half_a_name_is_told_and_not_passed_over(missing):
    environ = named("http://127.0.0.1:1")
    del environ[missing]
    with pytest.raises(UnableToUse, match=missing):
        real_provider(environ)


@pytest.mark.parametrize("dialects", [("openai",), ("anthropic",), ("openai", "anthropic")])
@pytest.mark.parametrize("sdk_share", [0.0, 1.0])
async def test_all_four_workloads_are_asked_in_the_dialects_that_the_provider_speaks(dialects, sdk_share):
    with served(*dialects) as teacher:
        provider = real_provider(named(f"{teacher.url}/v1/"))
        assert (provider.base_url, provider.dialects) == (teacher.url, dialects)
        plan = Plan(base_url=teacher.url, key=provider.key, calls=80, concurrency=8, stream_share=0.3)
        tally = await send(replace(plan, dialects=provider.dialects, sdk_share=sdk_share))
    assert (tally.calls, tally.errors, len(tally.workloads)) == (80, 0, 4)
    assert tally.agreed >= 78, "of the ambiguous ones either answer may come"


async def test_a_model_may_be_named():
    with served("openai") as teacher:
        provider = real_provider(named(teacher.url, TEACHER_MODEL="gpt-4o-mini"))
        plan = Plan(base_url=teacher.url, key=provider.key, calls=8, model=provider.model, dialects=provider.dialects)
        assert (provider.model, (await send(plan)).errors) == ("gpt-4o-mini", 0)
        assert (await send(replace(plan, model="unheard-of"))).kinds == {"status_404": 8}


def test_a_provider_that_takes_the_key_in_neither_dialect_is_told_with_what_it_said():
    with served("openai") as teacher, pytest.raises(UnableToUse, match="401 in the openai dialect"):
        real_provider(named(teacher.url, key="wrong"))
    with pytest.raises(UnableToUse, match="URLError in the openai dialect"):
        real_provider(named(f"http://127.0.0.1:{free_port()}"))
