"""The vendors' SDKs, sync and async, streamed and not, get words, tool calls and structured outputs of both arms."""

import json

import anthropic
import openai
import pytest

from ingestion.core.calls import Kind
from tests.serving.gateway.arms import Report, assert_both_arms_answer
from tests.serving.gateway.cast import PLAIN, SYSTEM, anthropic_ask, openai_ask

KEY = {"api_key": PLAIN.plain, "max_retries": 0}
CHAT_TOOL = openai.pydantic_function_tool(Report)
CHAT = {Kind.LABEL: {}, Kind.TOOL_CALL: {"tools": [CHAT_TOOL]}, Kind.JSON: {"response_format": Report}}
RESPONSES_TOOL = {"type": "function", **CHAT_TOOL["function"]}
RESPONSES = {Kind.LABEL: {}, Kind.TOOL_CALL: {"tools": [RESPONSES_TOOL]}, Kind.JSON: {"text_format": Report}}
CLAUDE_TOOL = {"name": "Report", "input_schema": Report.model_json_schema()}
CLAUDE = {Kind.LABEL: {}, Kind.TOOL_CALL: {"tools": [CLAUDE_TOOL]}, Kind.JSON: {"output_format": Report}}


def said_in_chat(whole) -> object:
    message = whole.choices[0].message
    if message.tool_calls:
        (call,) = message.tool_calls
        assert call.function.parsed_arguments == Report(**json.loads(call.function.arguments))
        assert whole.choices[0].finish_reason == "tool_calls"
        return call.function.name, json.loads(call.function.arguments)
    return message.parsed or message.content


def said_in_response(whole) -> object:
    (item,) = whole.output
    if item.type == "function_call":
        return item.name, json.loads(item.arguments)
    return whole.output_parsed or whole.output_text


def said_in_message(whole) -> object:
    (block,) = whole.content
    if block.type == "tool_use":
        assert whole.stop_reason == "tool_use"
        return block.name, block.input
    return whole.parsed_output or block.text


def chat_callers(kind: Kind) -> dict:
    ask = openai_ask(**CHAT[kind])

    def whole(url):
        with openai.OpenAI(base_url=f"{url}/v1", **KEY) as client:
            return said_in_chat(client.chat.completions.parse(**ask))

    def streamed(url):
        with openai.OpenAI(base_url=f"{url}/v1", **KEY) as client, client.chat.completions.stream(**ask) as stream:
            return said_in_chat(stream.get_final_completion())

    async def whole_later(url):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **KEY) as client:
            return said_in_chat(await client.chat.completions.parse(**ask))

    async def streamed_later(url):
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", **KEY) as client,
            client.chat.completions.stream(**ask) as stream,
        ):
            return said_in_chat(await stream.get_final_completion())

    return {"whole": whole, "streamed": streamed, "whole, async": whole_later, "streamed, async": streamed_later}


def response_callers(kind: Kind) -> dict:
    ask = {"model": "gpt-4o", "instructions": SYSTEM, "input": "Where is my parcel 4711?", "store": False}
    ask |= RESPONSES[kind]

    def whole(url):
        with openai.OpenAI(base_url=f"{url}/v1", **KEY) as client:
            return said_in_response(client.responses.parse(**ask))

    def streamed(url):
        with openai.OpenAI(base_url=f"{url}/v1", **KEY) as client, client.responses.stream(**ask) as stream:
            return said_in_response(stream.get_final_response())

    async def whole_later(url):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **KEY) as client:
            return said_in_response(await client.responses.parse(**ask))

    async def streamed_later(url):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", **KEY) as client, client.responses.stream(**ask) as stream:
            return said_in_response(await stream.get_final_response())

    return {"whole": whole, "streamed": streamed, "whole, async": whole_later, "streamed, async": streamed_later}


def message_callers(kind: Kind) -> dict:
    ask = anthropic_ask(**CLAUDE[kind])

    def whole(url):
        with anthropic.Anthropic(base_url=url, **KEY) as client:
            return said_in_message(client.messages.parse(**ask))

    def streamed(url):
        with anthropic.Anthropic(base_url=url, **KEY) as client, client.messages.stream(**ask) as stream:
            return said_in_message(stream.get_final_message())

    async def whole_later(url):
        async with anthropic.AsyncAnthropic(base_url=url, **KEY) as client:
            return said_in_message(await client.messages.parse(**ask))

    async def streamed_later(url):
        async with anthropic.AsyncAnthropic(base_url=url, **KEY) as client, client.messages.stream(**ask) as stream:
            return said_in_message(await stream.get_final_message())

    return {"whole": whole, "streamed": streamed, "whole, async": whole_later, "streamed, async": streamed_later}


@pytest.mark.parametrize("kind", [Kind.LABEL, Kind.TOOL_CALL, Kind.JSON])
@pytest.mark.parametrize("callers", [chat_callers, response_callers, message_callers])
async def test_a_vendor_s_sdk_reads_what_either_arm_says(stage, stands, callers, kind):
    await assert_both_arms_answer(stage, stands, kind, callers(kind))
