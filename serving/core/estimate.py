"""Counts tokens by length, for answers that nobody counted; a record that holds such a number says so."""

from ingestion.core.calls import Answer, Ask, Usage

CHARS_PER_TOKEN = 4


def estimate_usage(ask: Ask, answer: Answer | None) -> Usage:
    """Tokens of the ask and, if there is one, of the answer."""
    read = sum(len(message.text) for message in ask.messages)
    written = 0
    if answer is not None:
        written = len(answer.text) + sum(len(call.name) + len(call.arguments) for call in answer.tool_calls)
    return Usage(input_tokens=max(1, read // CHARS_PER_TOKEN), output_tokens=-(-written // CHARS_PER_TOKEN))
