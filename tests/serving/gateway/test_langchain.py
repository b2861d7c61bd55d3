"""LangChain, sync and async, streamed and not, gets words, tool calls and structured outputs of both arms.

In a file of its own: to import LangChain takes seconds.
"""

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI

from ingestion.core.calls import Kind
from tests.serving.gateway.arms import Report, assert_both_arms_answer
from tests.serving.gateway.cast import PLAIN, SYSTEM

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer")  # LangChain dumps what the SDK has parsed
TURNS = [("system", SYSTEM), ("user", "Where is my parcel 4711?")]


def chat(url: str) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", base_url=f"{url}/v1", api_key=PLAIN.plain, max_retries=0)


def responses(url: str) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt-4o",
        base_url=f"{url}/v1",
        api_key=PLAIN.plain,
        max_retries=0,
        use_responses_api=True,
        store=False,  # what the provider is to keep is the provider's to answer
    )


def messages(url: str) -> ChatAnthropic:
    return ChatAnthropic(model="claude-haiku-4-5", base_url=url, api_key=PLAIN.plain, max_retries=0, max_tokens=50)


def chain(model: BaseChatModel, kind: Kind) -> Runnable:
    if kind is Kind.TOOL_CALL:
        return model.bind_tools([Report])
    return model.with_structured_output(Report, method="json_schema") if kind is Kind.JSON else model


def callers(make, kind: Kind) -> dict:
    def invoke(url):
        return said(chain(make(url), kind).invoke(TURNS))

    def stream(url):
        return said(joined(list(chain(make(url), kind).stream(TURNS))))

    async def ainvoke(url):
        return said(await chain(make(url), kind).ainvoke(TURNS))

    async def astream(url):
        return said(joined([part async for part in chain(make(url), kind).astream(TURNS)]))

    return {"invoke": invoke, "stream": stream, "ainvoke": ainvoke, "astream": astream}


def joined(parts: list) -> object:
    """Messages add up; of structured outputs each is more of the same, and the last is whole."""
    whole, *rest = parts
    for part in rest:
        whole = whole + part if isinstance(part, AIMessage) else part
    return whole


def said(got: object) -> object:
    if not isinstance(got, AIMessage):
        return got
    return (got.tool_calls[0]["name"], got.tool_calls[0]["args"]) if got.tool_calls else got.text


@pytest.fixture(autouse=True)
def untraced(monkeypatch) -> None:
    """Nothing is told to LangSmith, whoever runs this."""
    for name in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.setenv(name, "false")


@pytest.mark.parametrize("kind", [Kind.LABEL, Kind.TOOL_CALL, Kind.JSON])
@pytest.mark.parametrize("make", [chat, responses, messages])
async def test_langchain_reads_what_either_arm_says(stage, stands, make, kind):
    await assert_both_arms_answer(stage, stands, kind, callers(make, kind))


@pytest.mark.parametrize("make", [chat, responses, messages])
async def test_a_structured_output_may_be_a_tool_that_must_be_called(stage, stands, make):
    def forced(url):
        got = make(url).with_structured_output(Report, method="function_calling").invoke(TURNS)
        return "Report", got.model_dump()

    await assert_both_arms_answer(stage, stands, Kind.TOOL_CALL, {"forced": forced})
