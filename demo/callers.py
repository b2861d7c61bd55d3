"""Makes one call and hears it out, in either dialect, through the official SDKs or plainly over aiohttp."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
import anthropic
import httpx
import openai

ARM_HEADER = "x-understudy-arm"
WORKLOAD_HEADER = "x-understudy-workload"
TIMEOUT_S = 60.0
ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back: `text` is the label or JSON, or the tool call's arguments; `workload` its id, "" without one."""

    status: int
    arm: str
    text: str = field(repr=False)
    workload: str = ""


class UnableToCall(Exception):
    """The call failed; `kind` is a short word for counting, `heard` what came back before."""

    def __init__(self, kind: str, heard: Heard) -> None:
        super().__init__(kind)
        self.kind = kind
        self.heard = heard


class PlainCaller:
    """Posts bodies over one aiohttp session, which the caller owns."""

    def __init__(self, session: aiohttp.ClientSession, *, base_url: str, key: str) -> None:
        self._session = session
        base = base_url.rstrip("/")
        self._urls = {"openai": f"{base}/v1/chat/completions", "anthropic": f"{base}/v1/messages"}
        self._headers = {
            "openai": {"authorization": f"Bearer {key}"},
            "anthropic": {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION},
        }

    async def call(self, dialect: str, body: Mapping[str, object]) -> Heard:
        """One call, heard to the end. Raises UnableToCall."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        heard = Heard(0, "", "")
        try:
            async with self._session.post(
                self._urls[dialect], json=body, headers=self._headers[dialect], timeout=timeout, allow_redirects=False
            ) as response:
                heard = _hear(response.status, response.headers)
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as failed:
            raise UnableToCall(type(failed).__name__, heard) from failed
        if heard.status != 200:
            raise UnableToCall(f"status_{heard.status}", heard)
        try:
            text = read_stream(dialect, raw) if body.get("stream") else read_body(dialect, json.loads(raw))
        except (ValueError, KeyError, IndexError, TypeError) as failed:
            raise UnableToCall("malformed", heard) from failed
        return replace(heard, text=text)


class SdkCaller:
    """Calls through openai.AsyncOpenAI and anthropic.AsyncAnthropic, without their retries: each failure counts."""

    def __init__(self, *, base_url: str, key: str) -> None:
        base = base_url.rstrip("/")
        self._openai = openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_S)
        self._anthropic = anthropic.AsyncAnthropic(base_url=base, api_key=key, max_retries=0, timeout=TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._openai.close()
        await self._anthropic.close()

    async def call(self, dialect: str, body: Mapping[str, object]) -> Heard:
        """One call, heard to the end. Raises UnableToCall."""
        try:
            return await (self._call_openai(body) if dialect == "openai" else self._call_anthropic(body))
        except (openai.APIStatusError, anthropic.APIStatusError) as failed:
            heard = _hear(failed.status_code, failed.response.headers)
            raise UnableToCall(f"status_{failed.status_code}", heard) from failed
        except (openai.APIError, anthropic.APIError, httpx.HTTPError) as failed:
            # The SDKs let a connection that breaks within a stream through as httpx's own error.
            raise UnableToCall(type(failed).__name__, Heard(0, "", "")) from failed
        except (ValueError, KeyError, IndexError, TypeError) as failed:
            raise UnableToCall("malformed", Heard(0, "", "")) from failed

    async def _call_openai(self, body: Mapping[str, object]) -> Heard:
        fields: dict[str, Any] = dict(body)
        raw = await self._openai.chat.completions.with_raw_response.create(**fields)
        heard, parsed = _hear(raw.http_response.status_code, raw.headers), cast(Any, raw.parse())
        if not body.get("stream"):
            return replace(heard, text=read_body("openai", parsed.model_dump()))
        return replace(heard, text=_join_openai([chunk.model_dump() async for chunk in parsed]))

    async def _call_anthropic(self, body: Mapping[str, object]) -> Heard:
        fields: dict[str, Any] = dict(body)
        raw = await self._anthropic.messages.with_raw_response.create(**fields)
        heard, parsed = _hear(raw.http_response.status_code, raw.headers), cast(Any, await raw.parse())
        if not body.get("stream"):
            return replace(heard, text=read_body("anthropic", parsed.model_dump()))
        return replace(heard, text=_join_anthropic([event.model_dump() async for event in parsed]))


def _hear(status: int, headers: Mapping[str, str]) -> Heard:
    return Heard(status, headers.get(ARM_HEADER, ""), "", headers.get(WORKLOAD_HEADER, ""))


def read_body(dialect: str, body: dict[str, Any]) -> str:
    """The answer in a whole response body. Raises KeyError, IndexError or TypeError where there is none."""
    if dialect == "openai":
        message = body["choices"][0]["message"]
        calls = message.get("tool_calls")
        return str(calls[0]["function"]["arguments"] if calls else message["content"])
    block = body["content"][0]
    return json.dumps(block["input"]) if block["type"] == "tool_use" else str(block["text"])


def read_stream(dialect: str, raw: bytes) -> str:
    """The answer in a whole SSE body. Raises ValueError where it does not reach its terminal event."""
    lines = [line[6:] for line in raw.decode().splitlines() if line.startswith("data: ")]
    if dialect == "anthropic":
        return _join_anthropic([json.loads(line) for line in lines])
    if not lines or lines[-1] != "[DONE]":
        raise ValueError("the stream ended early")
    return _join_openai([json.loads(line) for line in lines[:-1]])


def _join_openai(chunks: list[dict[str, Any]]) -> str:
    if not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]):
        raise ValueError("the stream ended early")
    return "".join(_openai_delta(chunk) for chunk in chunks)


def _join_anthropic(events: list[dict[str, Any]]) -> str:
    if not events or events[-1]["type"] != "message_stop":
        raise ValueError("the stream ended early")
    return "".join(_anthropic_delta(event) for event in events)


def _openai_delta(chunk: dict[str, Any]) -> str:
    if not chunk["choices"]:
        return ""
    delta = chunk["choices"][0]["delta"]
    calls = delta.get("tool_calls")
    return (calls[0]["function"].get("arguments") or "") if calls else delta.get("content") or ""


def _anthropic_delta(event: dict[str, Any]) -> str:
    if event["type"] != "content_block_delta":
        return ""
    return str(event["delta"].get("text") or event["delta"].get("partial_json") or "")
