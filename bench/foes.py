"""What strangers send to break a gateway, by kind: the inputs of `bench.hostile`, and the provider behind it."""

import asyncio
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from functools import cache

from bench.load import PATH, Upstream

MIB = 2**20
BOMB = 256 * MIB  # bytes that a small body unfolds to
LONG = 12 * MIB  # bytes of a body that is longer than a gateway takes
TALK_SECONDS = 0.1
_SAID = b'data: {"id": "x", "choices": [{"index": 0, "delta": {"content": "%b"}}]}\n\n' % (b"word " * 5000)
TALK = b"%x\r\n%b\r\n" % (len(_SAID), _SAID)  # 25 kB of a stream
ASK: dict[str, object] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Where is my pallet?"}]}
_NONCE = re.compile(rb"nonce[0-9]{5}")


@dataclass(frozen=True, slots=True)
class Kind:
    """Requests that are sent in turn, each on a connection of its own, on so many `lines` at once; `every`: a byte of
    them each so many seconds. Who is `deaf` reads no answer. `most` is how many are sent in all.
    """

    name: str
    requests: tuple[bytes, ...]
    lines: int = 8
    seconds: float = 4.0
    every: float = 0.0
    deaf: bool = False
    most: int = 100_000


def make_kinds(authorization: str) -> list[Kind]:
    """Every kind, from callers with a key in force: who has none is refused sooner."""
    key = f"authorization: {authorization}\r\n".encode()
    return [
        Kind("NUL", (*_asks(key, _nuls()), head(key + b"x-nul: \x00\r\n"))),
        Kind("surrogates and what is no UTF-8", _asks(key, _surrogates())),
        Kind("numbers of 5,000 digits", _asks(key, _numbers())),
        Kind("deep nesting", _asks(key, _nestings())),
        Kind("duplicate keys", _asks(key, _duplicates())),
        Kind("small values by the million", _asks(key, _dust()), lines=2),
        Kind("smuggling", _smuggled(key)),
        Kind("gzip bombs of callers", _bombs(key), seconds=5),
        Kind("gzip bombs of providers", (_ask(key, ASK | {"user": "bomb"}),), lines=2, seconds=6, most=40),
        Kind("bodies of 12 MiB", _long_bodies(key), lines=4),
        Kind("giant headers", _giant_heads(key)),
        Kind("who sends a byte a second", (head(key), _ask(key, ASK)), lines=400, seconds=22, every=1.0),
        Kind(
            "who reads nothing", (_ask(key, ASK | {"user": "talk", "stream": True}),), lines=200, seconds=8, deaf=True
        ),
    ]


def head(fields: bytes, *, path: str = PATH) -> bytes:
    """A request's head without its end."""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode() + fields


def post(fields: bytes, body: bytes, *, path: str = PATH) -> bytes:
    """A whole request, the only one on its connection."""
    return head(fields, path=path) + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def _ask(key: bytes, ask: dict[str, object]) -> bytes:
    return post(key, json.dumps(ask).encode())


def _asks(key: bytes, bodies: list[bytes]) -> tuple[bytes, ...]:
    return tuple(post(key, body, path=path) for body in bodies for path in (PATH, "/v1/responses"))


def _with(more: bytes, *, text: bytes = b"x") -> bytes:
    """An ask with more fields, and this as its text."""
    return (
        b'{"model": "gpt-4o", "input": "%b", "messages": [{"role": "user", "content": "%b"}]' % (text, text)
        + (b", " + more if more else b"")
        + b"}"
    )


def _nuls() -> list[bytes]:
    spelt = [b'"user": "\\u0000"', b'"metadata": {"\\u0000": "\\u0000"}', b'"tools": [{"type": "\\u0000"}]']
    return [*map(_with, spelt), _with(b"", text=b"\\u0000" * 1000), _with(b"", text=b"\x00"), b"\x00" * 1000, b"\x00"]


def _surrogates() -> list[bytes]:
    texts = [b"\\ud800", b"\\udfff\\ud800", b"\xed\xa0\x80", b"\xff\xfe", b"\xc0\xaf", b"\xf4\x90\x80\x80"]
    return [
        *[_with(b"", text=text) for text in texts],
        *[_with(b'"user": "%b"' % text) for text in texts],
        _with(b'"\\udead": 1'),
        _with(b'"model": "\\ud83d"'),
    ]


def _numbers() -> list[bytes]:
    digits = b"9" * 5000
    values = [digits, b"-" + digits, digits + b".5", b"0." + digits, b"1e" + digits, b"1e-" + digits, b"1e999"]
    names = (b"max_tokens", b"n", b"temperature", b"seed", b"stream", b"unknown")
    return [_with(b'"%b": %b' % (name, value)) for name in names for value in values]


def _nestings() -> list[bytes]:
    deep = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000]
    valid = [_nested(b"[", b"]", depth) for depth in (200, 250, 1000)]
    valid += [_nested(b'{"a":', b"}", depth) for depth in (200, 250, 1000)]
    places = [b'"metadata": %b', b'"tools": [{"type": "function", "function": {"name": "f", "parameters": {"p": %b}}}]']
    places += [b'"response_format": {"type": "json_schema", "json_schema": %b}', b'"stop": %b', b'"unknown": %b']
    return [*deep, *[_with(place % value) for place in places for value in valid]]


def _nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + b"1" + closing * depth


def _duplicates() -> list[bytes]:
    twice = [b'"model": "other"', b'"messages": []', b'"stream": true, "stream": false', b'"mod\\u0065l": "other"']
    many = b", ".join([b'"model": "gpt-4o"'] * 20_000)
    other = b", ".join([b'"x": 1'] * 50_000)
    return [*map(_with, twice), _with(many), _with(other), _with(b'"metadata": {%b}' % other)]


def _dust() -> list[bytes]:
    """As many values as fit into ten megabytes, and as many as are read; with and without a decisive key in them."""
    most = [b'"x": [%b1]' % (b"[]," * 3_000_000), b'"y": {"model": 1}, "x": [%b1]' % (b"{}," * 3_000_000)]
    read = [b'"x": [%b1]' % (b"1," * 480_000), b'"y": {"model": 1}, "x": [%b1]' % (b"[]," * 45_000)]
    return [_with(b'"messages": [], %b' % members) for members in (*most, *read)]


def _smuggled(key: bytes) -> tuple[bytes, ...]:
    """Bodies that one server takes for longer than another, with a request in what is left."""
    inner = _ask(key, ASK)
    start = head(key)
    framings = [
        b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
        b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"content-length: 0\r\ncontent-length: 6\r\n\r\n",
        b"content-length: +0\r\n\r\n",
        b"content-length: 0,0\r\n\r\n",
        b"content-length: 99999999999999999999999\r\n\r\n",
        b"x: y\ncontent-length: 0\n\n",
        b" folded: 1\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n0;\nx\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"transfer-encoding: chunked\r\n\r\n-1\r\n",
        b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 5\r\n\r\n",
        b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
    ]
    others = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/0.9\r\n\r\n"]
    others += [b"POST http://a/v1/%b HTTP/1.1\r\nhost: b\r\n\r\n" % (b"../" * 50), b"CONNECT a:1 HTTP/1.1\r\n\r\n"]
    return tuple(request + inner for request in [*(start + framing for framing in framings), *others])


def _bombs(key: bytes) -> tuple[bytes, ...]:
    packed = gzip.compress(b"[" * (16 * MIB), 9)
    coded = key + b"content-encoding: gzip\r\ncontent-type: application/json\r\n"
    return tuple(post(coded, packed, path=path) for path in (PATH, "/v1/responses", "/v1/embeddings", "/v1/files"))


def _long_bodies(key: bytes) -> tuple[bytes, ...]:
    body = _with(b"", text=b"x" * (LONG // 2))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _cut(body))
    chunked = head(key) + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    return post(key, body), chunked, head(key) + b"content-length: 999999999999\r\n\r\n" + body


def _cut(body: bytes, size: int = 50_000) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def _giant_heads(key: bytes) -> tuple[bytes, ...]:
    many = b"".join(b"x-%d: %b\r\n" % (number, b"b" * 100) for number in range(5000))
    ends = b"connection: close\r\ncontent-length: 0\r\n\r\n"
    trailers = b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 200_000
    return (
        head(key + b"x-long: " + b"a" * MIB + b"\r\n") + ends,
        head(key + b"x-endless: " + b"a" * MIB),
        head(key + many) + ends,
        head(key, path=PATH + "?" + "q" * MIB) + ends,
        head(b"authorization: Bearer " + b"k" * MIB + b"\r\n") + ends,
        head(key) + trailers,
        head(key) + b"transfer-encoding: chunked\r\n\r\n0;" + b"x" * MIB,
    )


class Provider(Upstream):
    """Says in each answer what its caller was called (`nonce` and five digits); unfolds without end for "bomb", and
    never comes to an end for "talk".
    """

    def answer(self, body: bytes) -> bytes:
        """The HTTP response, or its beginning."""
        if b'"bomb"' in body:
            return make_bomb()
        if b'"talk"' in body:
            self.talk_on()
            return self.answers[2]
        found = _NONCE.search(body)
        return super().answer(body).replace(b"chatcmpl-1", found[0] if found else b"chatcmpl-1")

    def talk_on(self) -> None:
        """Say some more in a moment, unless what was said before still waits here."""
        asyncio.get_running_loop().call_later(TALK_SECONDS, self._say_more)

    def _say_more(self) -> None:
        transport = self.transport
        if transport.is_closing():
            return
        if not transport.get_write_buffer_size():  # type: ignore[attr-defined]  # it writes
            transport.write(TALK)  # type: ignore[attr-defined]
        self.talk_on()


@cache
def make_bomb() -> bytes:
    """A small answer that unfolds to a large one."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    packed = b"".join(packer.compress(b" " * MIB) for _ in range(BOMB // MIB)) + packer.flush()
    fields = b"content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: %d" % len(packed)
    return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + packed
