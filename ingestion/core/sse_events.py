"""A stream's events, in each dialect, as far as they are read: the rest of one is skipped unparsed."""

from typing import Any

import msgspec


class Function(msgspec.Struct, gc=False):
    """What a tool call calls."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct, gc=False):
    """A piece of a tool call."""

    index: int = 0
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    """A piece of an answer."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers asked for."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None  # of the older completions
    finish_reason: str | None = None


class OpenAIEvent(msgspec.Struct, gc=False):
    """A chunk, or an error in its place; fields that are not read here are skipped unparsed."""

    model: str | None = None
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class Start(msgspec.Struct, gc=False):
    """How a message begins."""

    model: str = ""
    usage: dict[str, Any] | None = None


class Block(msgspec.Struct, gc=False):
    """How a part of a message begins."""

    type: str = ""
    text: str | None = None
    name: str | None = None


class AnthropicDelta(msgspec.Struct, gc=False):
    """A piece of a part, or how the message ends."""

    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class AnthropicEvent(msgspec.Struct, gc=False):
    """Any of the dialect's events: which fields are there depends on `type`."""

    type: str = ""
    index: int = 0
    message: Start | None = None
    content_block: Block | None = None
    delta: AnthropicDelta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class Item(msgspec.Struct, gc=False):
    """A part of a response."""

    type: str = ""
    name: str | None = None


class ResponsesEvent(msgspec.Struct, gc=False):
    """Any of the dialect's events: which fields are there depends on `type`."""

    type: str = ""
    output_index: int = 0
    delta: Any = None
    item: Item | None = None
    response: dict[str, Any] | None = None


# Typed decoding skips what nobody reads: half the time of a whole parse, on the one path that runs once a token.
decode_openai = msgspec.json.Decoder(OpenAIEvent).decode
decode_anthropic = msgspec.json.Decoder(AnthropicEvent).decode
decode_responses = msgspec.json.Decoder(ResponsesEvent).decode


class Passing(msgspec.Struct, gc=False):
    """What passes through says so much in one piece; the rest of it, numbers by the million say, is skipped unread."""

    model: str | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


decode_passing = msgspec.json.Decoder(Passing).decode
