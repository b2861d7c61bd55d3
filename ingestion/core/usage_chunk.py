"""Takes out of a stream of chat completions the one chunk that nobody but us asked for: the last, with the usage."""

import re

import msgspec

_END = re.compile(rb"\n\r?\n|\r\r")
_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_LONGEST_END = 3
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_LINE = re.compile(rb"\r\n|\n|\r")
_MOST_HELD = 131_072  # bytes of an event that does not end; past them the stream is shown as it comes


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


class UsageHider:
    """Passes a stream on event by event, as soon as each is whole, without chunks that hold usage and no choice.

    Source: OpenAI's reference on `stream_options.include_usage`. Azure's first chunk has no choice either, nor usage.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._gave_up = False

    def feed(self, part: bytes) -> bytes:
        """What may be passed on of the stream so far."""
        if self._gave_up:
            return part
        seen = max(0, len(self._held) - _LONGEST_END)
        self._held += part
        end = 0
        for match in _END.finditer(self._held, seen):
            end = match.end()
        if end:
            whole = bytes(self._held[:end])
            del self._held[:end]
            return _without_usage(whole) if _NO_CHOICES.search(whole) else whole
        self._gave_up = len(self._held) > _MOST_HELD
        return self.flush() if self._gave_up else b""

    def flush(self) -> bytes:
        """What is held of an event that will not end."""
        held = bytes(self._held)
        self._held.clear()
        return held


def _without_usage(events: bytes) -> bytes:
    """Whole events; of many that hold nothing, what lies between two that might tell usage is taken in one piece."""
    shown, taken = [], 0
    while found := _NO_CHOICES.search(events, taken):
        begin = _last_end(events, taken, found.start())
        end = _END.search(events, found.end())
        after = end.end() if end else len(events)
        shown.append(events[taken:begin])
        if not _tells_usage(events[begin:after]):
            shown.append(events[begin:after])
        taken = after
    return b"".join([*shown, events[taken:]])


def _last_end(events: bytes, begin: int, before: int) -> int:
    """Where the event begins that `before` lies in: after the last end of an event from `begin` on."""
    ends = (events.rfind(mark, begin, before) + len(mark) for mark in _ENDS if mark in events[begin:before])
    return max(ends, default=begin)


def _tells_usage(event: bytes) -> bool:
    data = b"\n".join(line[5:] for line in _LINE.split(event) if line.startswith(b"data:"))
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return chunk.choices == [] and chunk.usage is not None
