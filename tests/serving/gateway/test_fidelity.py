"""To the teacher bytes in, bytes out: what the provider hears and what the caller gets, read off the sockets."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from ingestion.core.calls import CallRecord
from ingestion.spool import SpoolReader
from serving.gateway.upstream import NEVER_SENT
from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import PLAIN, Stage, opened, serve_gateway
from tests.serving.gateway.matrix import ANTHROPIC, PAIRS, SSE, Pair

KEY = PLAIN.plain.encode()


@dataclass
class Heard:
    """A request as it came over the wire."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Recording:
    """A provider in a thread of its own, which answers each pair's request with that pair's bytes."""

    pairs: dict[str, Pair]
    heard: list[Heard] = field(default_factory=list)
    url: str = ""

    def start(self) -> None:
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        assert ready.wait(10)

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=2**20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while heard := await read_request(reader):
            self.heard.append(heard)
            pair = self.pairs[dict(heard.headers)[b"x-pair"].decode()]
            for piece in framed(pair):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if pair.framing == "close":
                break
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> Heard | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = head[:-4].split(b"\r\n")
    headers = [(name, value) for name, _, value in (entry.partition(b": ") for entry in fields)]
    length = int(dict(headers).get(b"content-length", b"0"))
    return Heard(line, headers, await reader.readexactly(length))


def framed(pair: Pair) -> Iterator[bytes]:
    """The provider's answer in the writes that it takes."""
    framing = {
        "length": b"content-length: %d\r\n" % len(pair.answer),
        "chunked": b"transfer-encoding: chunked\r\n",
        "close": b"connection: close\r\n",
    }[pair.framing]
    lines = b"".join(b"%b: %b\r\n" % header for header in pair.headers)
    yield b"HTTP/1.1 %d Said So\r\n" % pair.status + lines + framing + b"\r\n"
    step = pair.pieces or len(pair.answer) or 1
    for start in range(0, len(pair.answer), step):
        piece = pair.answer[start : start + step]
        yield b"%x\r\n%b\r\n" % (len(piece), piece) if pair.framing == "chunked" else piece
    if pair.framing == "chunked":
        yield b"0\r\n\r\n"


@dataclass(frozen=True)
class Answered:
    """An answer as it came over the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def call(url: str, pair: Pair) -> Answered:
    """Ask as the pair says, and read until the gateway hangs up."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
    credential = (b"x-api-key", KEY) if pair.sent == ANTHROPIC else (b"authorization", b"Bearer " + KEY)
    headers = [(b"host", b"x"), credential, *pair.sent, (b"x-pair", pair.name.encode()), (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = b"%b %b HTTP/1.1\r\n" % (pair.method.encode(), pair.path.encode())
    writer.write(head + lines + b"content-length: %d\r\n\r\n" % len(pair.body) + pair.body)
    got = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, body = got.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    found = [(name, value) for name, _, value in (entry.partition(b": ") for entry in fields)]
    coded = dict(found).get(b"transfer-encoding") == b"chunked"
    return Answered(int(line.split(b" ")[1]), found, dechunked(body) if coded else body)


def dechunked(body: bytes) -> bytes:
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert body == b"\r\n"
            return whole
        assert body[length : length + 2] == b"\r\n"
        whole, body = whole + body[:length], body[length + 2 :]


@pytest.fixture(scope="module")
def provider() -> Recording:
    found = Recording({pair.name: pair for pair in PAIRS})
    found.start()
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory, provider) -> Iterator[Stage]:
    stage = Stage(directory=tmp_path_factory.mktemp("gateway"))
    stage.urls = {"teacher": provider.url, "encoder": provider.url, "replica": provider.url}
    stage.publish()
    with serve_gateway(stage) as gateway:
        stage.url = gateway.url
        yield stage


@pytest.fixture(scope="module")
def log(house) -> Iterator["Log"]:
    with SpoolReader(house.spool_dir) as reader:
        yield Log(reader)


class Log:
    """The spool's records by call, read as they come."""

    def __init__(self, reader: SpoolReader) -> None:
        self._reader = reader
        self._found: dict[str, list[CallRecord]] = {}

    def of(self, call_id: str) -> list[CallRecord]:
        wait_for(lambda: call_id in self._found or self._read())
        return self._found[call_id]

    def _read(self) -> bool:
        batch = self._reader.read()
        for record in batch.records:
            self._found.setdefault(record.id, []).append(record)
        self._reader.commit(batch)
        return False


def test_the_matrix_is_as_large_as_it_says_and_names_each_pair_once():
    assert len({pair.name for pair in PAIRS}) == len(PAIRS) >= 300


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
async def test_a_pair_passes_to_the_byte_and_is_logged_as_it_passed(pair, house, provider, log):
    provider.heard.clear()
    got = await call(house.url, pair)

    (heard,) = provider.heard
    assert heard.line == f"{pair.method} {pair.path} HTTP/1.1".encode()
    assert heard.body == pair.body
    assert [header for header in heard.headers if header[0] not in NEVER_SENT | {b"via"}] == [
        *pair.sent,
        (b"x-pair", pair.name.encode()),
    ]

    assert (got.status, got.body) == (pair.status, pair.answer)
    theirs = [header for header in got.headers if not header[0].startswith(b"x-understudy-")]
    framing = {b"content-length", b"transfer-encoding", b"connection"}
    assert [header for header in theirs if header[0] not in framing] == list(pair.headers)

    call_id = dict(got.headers)[b"x-understudy-call"].decode()
    (record,) = log.of(call_id)
    assert (record.status, opened(record, "request")) == (pair.status, pair.body)
    if not pair.kept:
        assert record.response_sealed is None
        return
    kept, sent = opened(record, "response"), pair.answer if pair.decoded is None else pair.decoded
    assert kept == sent or (pair.headers == SSE and is_all_but_the_last_line_end(kept, sent))


def is_all_but_the_last_line_end(kept: bytes, sent: bytes) -> bool:
    """A stream is recorded before its terminal event leaves, and the blank line after that may come later still."""
    return sent.startswith(kept) and not sent[len(kept) :].strip(b"\r\n")
