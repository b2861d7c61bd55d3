"""Why a stream can be passed on untouched and still be remembered: a reader that listens along, whatever the chunks.

It never raises and never holds the stream up: what it cannot read makes the answer incomplete (`broken`), not the call.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from ingestion.core import anthropic_wire, openai_wire, responses_wire
from ingestion.core.calls import Answer, Dialect, Finish, ToolCall, Usage
from ingestion.core.reading import UnableToParse

_DONE = (b"data: [DONE]", b"data:[DONE]")
MAX_CALLS = 128  # tool calls of one answer
MAX_LINE_BYTES = 2**20  # a line that never ends must not fill the memory
MAX_STREAM_BYTES = 32 * 2**20  # nor a stream that never does


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _OpenAIEvent(msgspec.Struct, gc=False):
    """A chunk, or an error in its place; fields that are not read here are skipped unparsed."""

    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _Start(msgspec.Struct, gc=False):
    model: str = ""
    usage: dict[str, Any] | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    name: str | None = None


class _AnthropicDelta(msgspec.Struct, gc=False):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _AnthropicEvent(msgspec.Struct, gc=False):
    """Any of the dialect's events: which fields are there depends on `type`."""

    type: str = ""
    index: int = 0
    message: _Start | None = None
    content_block: _Block | None = None
    delta: _AnthropicDelta | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    name: str | None = None


class _ResponsesEvent(msgspec.Struct, gc=False):
    """Any of the dialect's events: which fields are there depends on `type`."""

    type: str = ""
    output_index: int = 0
    delta: Any = None
    item: _Item | None = None
    response: dict[str, Any] | None = None


# Typed decoding skips what nobody reads: half the time of a whole parse, on the one path that runs once a token.
_decode_openai = msgspec.json.Decoder(_OpenAIEvent).decode
_decode_anthropic = msgspec.json.Decoder(_AnthropicEvent).decode
_decode_responses = msgspec.json.Decoder(_ResponsesEvent).decode
_TEXT_DELTAS = ("response.output_text.delta", "response.refusal.delta")
_LAST_EVENTS = ("response.completed", "response.incomplete")
_FAILURES = ("response.failed", "error")


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
        self._read_event = {
            Dialect.OPENAI: self._read_openai,
            Dialect.RESPONSES: self._read_responses,
            Dialect.ANTHROPIC: self._read_anthropic,
        }[dialect]
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
        self._whole: Answer | None = None  # where the last event repeats all of it

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            lines[0] = bytes(self._line + lines[0])
            self._line.clear()
        for line in lines:
            if self.finished or self.broken:
                break
            self._end_line(line)
        self._line += rest
        if len(self._line) > MAX_LINE_BYTES:
            self._line.clear()
            self.broken = self.broken or not self.finished

    def give_up(self) -> None:
        """Hold nothing of it any more: as if it could not be read from here on."""
        self.broken = self.broken or not self.finished
        self._line.clear()
        self._data.clear()
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
        if line.endswith(b"\r"):
            line = line[:-1]
        if not line:
            if self._data:
                data, self._data = self._data, []
                self._end_event(data[0] if len(data) == 1 else b"\n".join(data))
            return
        self._bytes += len(line)
        if len(line) > MAX_LINE_BYTES or self._bytes > MAX_STREAM_BYTES:
            self.broken = True
        elif line in _DONE:
            self.finished = True  # at once: some servers close without the blank line that ends an event
        elif line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])

    def _end_event(self, data: bytes) -> None:
        try:
            self._read_event(data)
        except (msgspec.MsgspecError, ValueError, RecursionError, UnableToParse):
            self.broken = True

    def _read_openai(self, data: bytes) -> None:
        event = _decode_openai(data)
        if event.error is not None:
            self.broken = True
            return
        self._model = self._model or event.model or ""
        if event.usage is not None:
            self._usage = responses_wire.read_either_usage(event.usage)
        for choice in event.choices or ():
            delta = choice.delta or _Delta()
            text = delta.content or delta.refusal
            if text:
                self.output_chars += len(text)
            for call in delta.tool_calls or ():
                self.output_chars += len((call.function and call.function.arguments) or "")
            if choice.index == 0:
                self._read_choice(choice, delta)

    def _read_choice(self, choice: _Choice, delta: _Delta) -> None:
        """Take in a piece of the first choice: the only one that becomes the Answer."""
        if text := delta.content or delta.refusal:
            self._texts.append(text)
            self._refused = self._refused or not delta.content
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            if len(self._calls) >= MAX_CALLS and call.index not in self._calls:
                self.broken = True
                return
            draft = self._calls.setdefault(call.index, _Draft())
            draft.names.append(function.name or "")
            draft.arguments.append(function.arguments or "")
        if choice.finish_reason is not None:
            self._finish = openai_wire.read_finish(choice.finish_reason)

    def _read_anthropic(self, data: bytes) -> None:
        event = _decode_anthropic(data)
        if event.error is not None:
            self.broken = True
        elif event.type == "content_block_delta" and event.delta is not None:
            self._extend_block(event.index, event.delta)
        elif event.type == "content_block_start" and event.content_block is not None:
            self._start_block(event.index, event.content_block)
        elif event.type == "message_start" and event.message is not None:
            self._model, self._counts = event.message.model, event.message.usage or {}
        elif event.type == "message_delta":
            self._end_message(event)
        elif event.type == "message_stop":
            self.finished = True

    def _start_block(self, index: int, block: _Block) -> None:
        if len(self._calls) >= MAX_CALLS:
            self.broken = True
        elif block.type == "tool_use":
            self._calls[index] = _Draft([block.name or ""])
        elif block.text:
            self._texts.append(block.text)
            self.output_chars += len(block.text)

    def _extend_block(self, index: int, delta: _AnthropicDelta) -> None:
        if delta.text:
            self._texts.append(delta.text)
            self.output_chars += len(delta.text)
        elif delta.partial_json:
            self.output_chars += len(delta.partial_json)
            if index in self._calls:
                self._calls[index].arguments.append(delta.partial_json)

    def _end_message(self, event: _AnthropicEvent) -> None:
        """Output tokens are known only here: before it the announced count is a stub, so `usage` stays None."""
        if event.delta is not None:
            self._finish = anthropic_wire.read_finish(event.delta.stop_reason)
        said = {name: count for name, count in (event.usage or {}).items() if count is not None}
        if said:
            self._counts.update(said)
            self._usage = anthropic_wire.read_usage(self._counts)

    def _read_responses(self, data: bytes) -> None:
        event = _decode_responses(data)
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

    def _start_item(self, index: int, item: _Item) -> None:
        if item.type != "function_call":
            return
        if len(self._calls) >= MAX_CALLS:
            self.broken = True
        self._calls[index] = _Draft([item.name or ""])
