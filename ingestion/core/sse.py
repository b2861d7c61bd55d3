"""Why a stream can be passed on untouched and still be remembered: a reader that listens along, whatever the chunks.

It never raises and never holds the stream up: what it cannot read makes the answer incomplete (`broken`), not the call.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ingestion.core import anthropic_wire, openai_wire, responses_wire
from ingestion.core.calls import Answer, Dialect, Finish, ToolCall, Usage
from ingestion.core.reading import UnableToParse
from ingestion.core.sse_events import (
    AnthropicDelta,
    AnthropicEvent,
    Block,
    Choice,
    Delta,
    Function,
    Item,
    decode_anthropic,
    decode_openai,
    decode_responses,
)

_DONE: Final = (b"data: [DONE]", b"data:[DONE]")
MAX_CALLS: Final = 128  # tool calls of one answer
MAX_LINE_BYTES: Final = 2**20  # a line that never ends must not fill the memory
MAX_STREAM_BYTES: Final = 32 * 2**20  # nor a stream that never does


_TEXT_DELTAS: Final = ("response.output_text.delta", "response.refusal.delta")
_LAST_EVENTS: Final = ("response.completed", "response.incomplete")
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_FAILURES: Final = ("response.failed", "error")


@dataclass(slots=True)
class _Draft:
    """One tool call as far as it has come."""

    names: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)


class StreamReader:
    """Assembles the Answer of one streamed call from its bytes.

    `finished`: the dialect's terminal event was seen. `broken`: an error event came, or bytes that are no such stream;
    nothing after them counts. `output_chars`: characters of text and tool arguments so far, over all choices.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.finished = False
        self.broken = False
        self.output_chars = 0
        self._dialect = dialect
        self._bytes = 0
        self._line = bytearray()  # the line that has not ended yet
        self._data: list[bytes] = []  # the data lines of the event that has not ended yet
        self._model = ""
        self._texts: list[str] = []
        self._calls: dict[int, _Draft] = {}
        self._finish = Finish.OTHER
        self._refused = False
        self._usage: Usage | None = None
        self._counts: dict[str, Any] = {}
        self._keeps = True  # what is said
        self._whole: Answer | None = None  # where the last event repeats all of it

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        if self._is_over():
            return
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
        for line in lines:
            if self._is_over():
                break
            self._end_line(line)
        self._line += rest
        if len(self._line) > MAX_LINE_BYTES:
            self._line.clear()
            self.broken = self.broken or not self.finished

    def _is_over(self) -> bool:
        return self.finished or self.broken

    def give_up(self) -> None:
        """Hold nothing of it any more: as if it could not be read from here on."""
        self.broken = self.broken or not self.finished
        self.forget()
        self._line.clear()
        self._data.clear()
        self._counts.clear()

    def forget(self) -> None:
        """Hold nothing of what was said, and go on to see how it ends."""
        self._keeps = False
        self._texts.clear()
        self._calls.clear()

    @property
    def announced(self) -> Usage | None:
        """What the provider said it has read, before it said what it wrote: Anthropic does so as a stream begins."""
        return anthropic_wire.read_usage(self._counts) if self._counts else None

    def answer(self) -> Answer:
        """What has been assembled so far; `usage` is None where the provider has not announced it (yet)."""
        if self._whole is not None:
            return self._whole
        calls = [self._calls[index] for index in sorted(self._calls)]
        return Answer(
            text="".join(self._texts),
            finish=Finish.REFUSAL if self._refused else self._finish,
            model=self._model,
            tool_calls=tuple(ToolCall("".join(call.names), "".join(call.arguments)) for call in calls),
            usage=self._usage,
        )

    def _end_line(self, line: bytes) -> None:
        self._bytes += len(line) + 1
        if line.endswith(b"\r"):
            line = line[:-1]
        if not line:
            if self._data:
                data, self._data = self._data, []
                self._end_event(data[0] if len(data) == 1 else b"\n".join(data))
            return
        if len(line) > MAX_LINE_BYTES or self._bytes > MAX_STREAM_BYTES:
            self.broken = True
        elif line in _DONE:
            self.finished = True  # at once: some servers close without the blank line that ends an event
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])

    def _end_event(self, data: bytes) -> None:
        try:
            if self._dialect is Dialect.OPENAI:
                self._read_openai(data)
            elif self._dialect is Dialect.ANTHROPIC:
                self._read_anthropic(data)
            else:
                self._read_responses(data)
        except (msgspec.MsgspecError, ValueError, RecursionError, UnableToParse):
            self.broken = True
        if not self._keeps:
            self._texts.clear()
            self._calls.clear()

    def _read_openai(self, data: bytes) -> None:
        event = decode_openai(data)
        if event.error is not None:
            self.broken = True
            return
        self._model = self._model or event.model or ""
        if event.usage is not None:
            self._usage = responses_wire.read_either_usage(event.usage)
        for choice in event.choices or ():
            delta = choice.delta or Delta()
            self.output_chars += len(delta.content or delta.refusal or choice.text or "")
            for call in delta.tool_calls or ():
                self.output_chars += len((call.function and call.function.arguments) or "")
            if choice.index == 0:
                self._read_choice(choice, delta)

    def _read_choice(self, choice: Choice, delta: Delta) -> None:
        """Take in a piece of the first choice: the only one that becomes the Answer."""
        if text := delta.content or delta.refusal:
            self._texts.append(text)
            self._refused = self._refused or not delta.content
        for call in delta.tool_calls or ():
            function = call.function or Function()
            if len(self._calls) >= MAX_CALLS and call.index not in self._calls:
                self.broken = True
                return
            draft = self._calls.setdefault(call.index, _Draft())
            if function.name:
                draft.names.append(function.name)
            if function.arguments:
                draft.arguments.append(function.arguments)
        if choice.finish_reason is not None:
            self._finish = openai_wire.read_finish(choice.finish_reason)

    def _read_anthropic(self, data: bytes) -> None:
        event = decode_anthropic(data)
        if event.error is not None:
            self.broken = True
        elif event.type == "content_block_delta" and event.delta is not None:
            self._extend_block(event.index, event.delta)
        elif event.type == "content_block_start" and event.content_block is not None:
            self._start_block(event.index, event.content_block)
        elif event.type == "message_start" and event.message is not None:
            self._model, self._counts = event.message.model, _counts(event.message.usage)
        elif event.type == "message_delta":
            self._end_message(event)
        elif event.type == "message_stop":
            self.finished = True

    def _start_block(self, index: int, block: Block) -> None:
        if len(self._calls) >= MAX_CALLS:
            self.broken = True
        elif block.type == "tool_use":
            self._calls[index] = _Draft([block.name or ""])
        elif block.text:
            self._texts.append(block.text)
            self.output_chars += len(block.text)

    def _extend_block(self, index: int, delta: AnthropicDelta) -> None:
        if delta.text:
            self._texts.append(delta.text)
            self.output_chars += len(delta.text)
        elif delta.partial_json:
            self.output_chars += len(delta.partial_json)
            if index in self._calls:
                self._calls[index].arguments.append(delta.partial_json)

    def _end_message(self, event: AnthropicEvent) -> None:
        """Output tokens are known only here: before it the announced count is a stub, so `usage` stays None."""
        if event.delta is not None:
            self._finish = anthropic_wire.read_finish(event.delta.stop_reason)
        said = _counts(event.usage)
        if said:
            self._counts.update(said)
            self._usage = anthropic_wire.read_usage(self._counts)

    def _read_responses(self, data: bytes) -> None:
        event = decode_responses(data)
        if event.type in _TEXT_DELTAS and isinstance(event.delta, str):
            self._texts.append(event.delta)
            self._refused = self._refused or event.type == _TEXT_DELTAS[1]
            self.output_chars += len(event.delta)
        elif event.type == "response.output_item.added" and event.item is not None:
            self._start_item(event.output_index, event.item)
        elif event.type == "response.function_call_arguments.delta" and isinstance(event.delta, str):
            self.output_chars += len(event.delta)
            if event.output_index in self._calls:
                self._calls[event.output_index].arguments.append(event.delta)
        elif event.type == "response.created" and event.response is not None:
            self._model = str(event.response.get("model") or "")
        elif event.type in _LAST_EVENTS and event.response is not None:
            self._whole = responses_wire.read_response(event.response)
            self.finished = True
        elif event.type in _FAILURES:
            self.broken = True

    def _start_item(self, index: int, item: Item) -> None:
        if item.type != "function_call":
            return
        if len(self._calls) >= MAX_CALLS:
            self.broken = True
        self._calls[index] = _Draft([item.name or ""])


def _counts(usage: dict[str, Any] | None) -> dict[str, Any]:
    """Of what a stream says it used so far what is a number: the rest says nothing, and might be long."""
    return {name: count for name, count in (usage or {}).items() if type(count) is int and name in _COUNTS}
