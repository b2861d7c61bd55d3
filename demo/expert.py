"""Answers a request as a careful person with the workload's rules would, from its text alone.

It knows a workload by its system prompt, takes the query from the last user message and reads it by the grammar.
It keeps no state: the same request always has the same answer. Tokens are estimated at four characters each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demo.grammar.phrases import tokens
from demo.grammar.sampling import Workload
from demo.workloads import WORKLOADS, unwrap_query

MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet-4-6")
NO_ANSWER = "I can only help with the workloads of Meridian Logistics."
CHARACTERS_PER_TOKEN = 4
_MARK_WORDS = 12  # how many first words of a system prompt tell the workloads apart


class UnableToAnswer(Exception):
    """The request is not one the provider would take; `status` is what it would say."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """What the expert says: text, or the arguments of `tool`; `truncated` where the request's token limit cut it."""

    model: str
    text: str
    tool: str | None
    input_tokens: int
    output_tokens: int
    truncated: bool


def answer(body: Mapping[str, object], *, dialect: str) -> Reply:
    """The reply to a request body in either dialect. Raises UnableToAnswer."""
    model = body.get("model")
    if not isinstance(model, str):
        raise UnableToAnswer("model: a string is required")
    if model not in MODELS:
        raise UnableToAnswer(f"The model `{model}` does not exist", status=404)
    limit = _read_limit(body, dialect)
    system, user, characters = _read_texts(body, dialect)
    workload = recognise(system)
    text = NO_ANSWER if workload is None else workload.read(unwrap_query(workload, user))
    tool = workload.tool[0] if workload is not None and workload.tool is not None and body.get("tools") else None
    wanted = count_tokens(len(text))
    truncated = limit is not None and wanted > limit
    if truncated and limit is not None:
        text, wanted = text[: limit * CHARACTERS_PER_TOKEN], limit
    return Reply(model, text, tool, count_tokens(characters), wanted, truncated)


def recognise(system: str) -> Workload | None:
    """The workload whose system prompt begins as this one does, None where there is none."""
    mark = tokens(system)[:_MARK_WORDS]
    return next((workload for workload in WORKLOADS.values() if tokens(workload.system)[:_MARK_WORDS] == mark), None)


def count_tokens(characters: int) -> int:
    """An estimate of the tokens in so many characters, at least 1."""
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def _read_limit(body: Mapping[str, object], dialect: str) -> int | None:
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    if limit is None and dialect == "openai":
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise UnableToAnswer("max_tokens: a positive integer is required")
    return limit


def _read_texts(body: Mapping[str, object], dialect: str) -> tuple[str, str, int]:
    """The system prompt, the last user message, and how many characters the request has in all."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise UnableToAnswer("messages: at least one message is required")
    turns = [_read_turn(message) for message in messages]
    system = _read_content(body.get("system", "")) if dialect == "anthropic" else _last(turns, ("system", "developer"))
    tools = body.get("tools")
    characters = len(system) * (dialect == "anthropic") + sum(len(text) for _, text in turns) + len(str(tools or ""))
    return system, _last(turns, ("user",)), characters


def _read_turn(message: object) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(role := message.get("role"), str):
        raise UnableToAnswer("messages: each message needs a role")
    return role, _read_content(message.get("content") or "")


def _read_content(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnableToAnswer("messages: content is neither text nor a list of parts")
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in parts if isinstance(text, str))


def _last(turns: Sequence[tuple[str, str]], roles: Sequence[str]) -> str:
    return next((text for role, text in reversed(turns) if role in roles), "")
