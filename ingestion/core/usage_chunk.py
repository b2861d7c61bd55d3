"""Takes out of a stream of chat completions the one chunk that nobody but us asked for: the last, with the usage."""

import re

import msgspec

_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_MOST_HELD = 2**20  # bytes of an event that does not end


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: dict[str, msgspec.Raw] | None = None


class UsageHider:
    """Passes a stream on event by event, as soon as each is whole, without chunks that hold usage and no choice.

    Source: OpenAI's reference on `stream_options.include_usage`. Azure's first chunk has no choice either, nor usage.
    """

    def __init__(self) -> None:
        self._held = b""

    def feed(self, part: bytes) -> bytes:
        """What may be passed on of the stream so far."""
        data = self._held + part
        end = 0
        for match in _END.finditer(data):
            end = match.end()
        whole, self._held = data[:end], data[end:]
        if len(self._held) > _MOST_HELD:
            whole, self._held = whole + self._held, b""
        return _without_usage(whole) if _NO_CHOICES.search(whole) else whole

    def flush(self) -> bytes:
        """What is held of an event that will not end."""
        held, self._held = self._held, b""
        return held


def _without_usage(events: bytes) -> bytes:
    shown, at = [], 0
    for match in _END.finditer(events):
        event = events[at : match.end()]
        at = match.end()
        if not _tells_usage(event):
            shown.append(event)
    return b"".join(shown) + events[at:]


def _tells_usage(event: bytes) -> bool:
    data = event.strip()
    if not data.startswith(b"data:") or not _NO_CHOICES.search(data):
        return False
    try:
        chunk = msgspec.json.decode(data[5:], type=_Chunk)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return chunk.choices == [] and chunk.usage is not None
