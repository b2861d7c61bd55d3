"""Holds that an audit compares with the teacher's whole answer or with none."""

import aiohttp
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
