"""Holds that an audit compares with the teacher's whole answer or with none."""

import aiohttp
import msgspec
import pytest

from ingestion.core.calls import Dialect
from ingestion.core.dialects import parse_ask
from serving import teacher
from tests.fakes.serve import Served
from tests.fakes.teacher import TEXT, Teacher
from tests.ingestion.makers import request_of


@pytest.fixture
def ask_teacher():
    async def ask(**fields):
        with Served(Teacher()) as served:
            where = teacher.Teacher(Dialect.OPENAI, served.url, "sk")
            async with aiohttp.ClientSession() as http:
                asked = parse_ask(Dialect.OPENAI, request_of("where is my pallet", **fields))
                return await teacher.ask_teacher(where, asked, http=http)

    return ask


async def test_azure_is_asked_for_the_deployment_that_the_call_named_in_its_path():
    raw = b'{"messages":[{"role":"user","content":"where is my pallet"}]}'
    with Served(asked := Teacher()) as served:
        where = teacher.Teacher("azure", served.url, "sk-azure")
        async with aiohttp.ClientSession() as http:
            ask = parse_ask(Dialect.OPENAI, raw, model="prod")
            assert (await teacher.ask_teacher(where, ask, http=http)).text == TEXT
    seen = asked.seen[0]
    assert (seen.path, seen.headers["api-key"]) == ("/openai/v1/chat/completions", "sk-azure")
    assert seen.body == b'{"model":"prod",' + raw[1:] and "authorization" not in seen.headers


async def test_a_body_that_names_its_model_in_no_way_that_can_be_changed_is_not_asked_with():
    raw = b'{"model":{"a":1},"messages":[{"role":"user","content":"where is my pallet"}]}'
    ask = msgspec.structs.replace(parse_ask(Dialect.OPENAI, request_of("x")), raw=raw, model="prod")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(teacher.UnableToAsk):
            await teacher.ask_teacher(teacher.Teacher("azure", "http://127.0.0.1:9", "sk"), ask, http=http)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_is_read_to_its_end_streamed_or_not(ask_teacher, stream):
    assert (await ask_teacher(stream=stream)).text == TEXT


@pytest.mark.parametrize(
    ("model", "stream"),
    [("broken", True), ("broken", False), ("never-done", True), ("failing", False), ("moved", False)],
)
async def test_half_an_answer_or_an_error_is_no_answer(ask_teacher, model, stream):
    with pytest.raises(teacher.UnableToAsk):
        await ask_teacher(model=model, stream=stream)
