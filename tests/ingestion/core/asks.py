"""Asks and answers as the tests of this folder need them."""

from collections.abc import Sequence

from ingestion.core.calls import Answer, Ask, Dialect, Finish, Message, Tool, ToolCall

SYSTEM = "You sort a bank's mail. Answer with one label."


def an_ask(
    *turns: Message, system: str = SYSTEM, model: str = "gpt-4o", tools: Sequence[Tool] = (), user: str = "Hello"
) -> Ask:
    prompts = (Message(role="system", text=system),) if system else ()
    messages = (*prompts, *(turns or (Message(role="user", text=user),)))
    return Ask(dialect=Dialect.OPENAI, model=model, messages=messages, raw=b"{}", tools=tuple(tools))


def said(text: str, *calls: ToolCall, finish: Finish = Finish.STOP) -> Answer:
    return Answer(text=text, finish=finish, model="gpt-4o", tool_calls=calls)
