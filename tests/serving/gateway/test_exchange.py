"""HTTP/1.1 towards callers, byte by byte: what the gateway says on a connection, and when it lets go of it."""

import asyncio
import json
import time

import pytest

from serving.gateway import protocol
from serving.gateway.exchange import Exchange
from tests.fakes.serve import wait_for
from tests.fakes.teacher import TEXT
from tests.serving.gateway.cast import PLAIN, openai_ask
from tests.serving.gateway.test_hostile import HEAD, Raw


def request(*, head: str = HEAD, more: str = "", **ask) -> bytes:
    body = json.dumps(openai_ask(**ask)).encode()
    return f"{head}{more}content-length: {len(body)}\r\n\r\n".encode() + body


def answers(raw: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer with a length, in order."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        found.append((int(head.split()[1]), raw[: lengths[0]]))
        raw = raw[lengths[0] :]
    return found


def test_requests_that_come_at_once_are_answered_in_order(live):
    slow, fast, last = (
        request(model="delay-200"),
        request(head="GET /healthz HTTP/1.1\r\n", model="x"),
        request(model="unknown-model", more="connection: close\r\n"),
    )
    with Raw(live.url) as caller:
        found = answers(caller.send(slow + fast + last).whole())
    assert [status for status, _ in found] == [200, 200, 404]
    assert TEXT.encode() in found[0][1] and found[1][1] == b"ok\n"


def test_a_request_may_come_a_byte_at_a_time(live):
    with Raw(live.url) as caller:
        for byte in request(more="connection: close\r\n"):
            caller.send(bytes([byte]))
        assert answers(caller.whole())[0][0] == 200


def test_a_body_in_chunks_is_one_body(live):
    body = json.dumps(openai_ask()).encode()
    parts = [body[:7], body[7:40], body[40:]]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    with Raw(live.url) as caller:
        caller.send(HEAD + "connection: close\r\ntransfer-encoding: chunked\r\n\r\n").send(chunks)
        assert answers(caller.whole())[0][0] == 200
    assert live.teacher.seen[0].body == body


def test_a_caller_of_http_1_0_gets_a_stream_that_ends_with_the_connection(live):
    with Raw(live.url) as caller:
        head, _, body = (
            caller.send(request(head=HEAD.replace("1.1", "1.0"), stream=True)).whole().partition(b"\r\n\r\n")
        )
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")


def test_who_waits_for_our_word_is_given_it_and_whom_we_refuse_first_is_hung_up_on(live):
    body = json.dumps(openai_ask()).encode()
    more = f"expect: 100-continue\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    with Raw(live.url) as caller:
        assert caller.send(HEAD + more).some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answers(caller.send(body).whole())[0][0] == 200
    stranger = HEAD.replace(PLAIN.plain, "nobody") + more.replace("connection: close\r\n", "")
    with Raw(live.url) as caller:
        raw = caller.send(stranger).whole()
    assert raw.startswith(b"HTTP/1.1 401 ") and b"connection: close" in raw


def test_a_head_request_is_told_the_length_and_sent_no_body(live):
    head = HEAD.replace("POST /v1/chat/completions", "HEAD /v1/models") + "connection: close\r\n\r\n"
    with Raw(live.url) as caller:
        raw = caller.send(head).whole()
    assert raw.startswith(b"HTTP/1.1 200 ") and raw.endswith(b"\r\n\r\n") and raw.count(b"\r\n\r\n") == 1


def test_a_refusal_before_the_body_is_whole_does_not_take_the_rest_for_the_next_request(live):
    body = json.dumps(openai_ask()).encode()
    stranger = HEAD.replace(PLAIN.plain, "nobody") + f"content-length: {len(body)}\r\n\r\n"
    with Raw(live.url) as caller:
        assert caller.send(stranger).send(body[:20]).some().startswith(b"HTTP/1.1 401 ")
        caller.send(body[20:]).send(request(more="connection: close\r\n"))
        assert [status for status, _ in answers(caller.whole())] == [200]


def test_a_connection_that_nobody_uses_is_let_go_and_one_in_use_is_not(live, monkeypatch):
    monkeypatch.setattr(protocol, "UNUSED_SECONDS", 0.3)
    with Raw(live.url) as caller:
        assert caller.send(request()).some().startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        assert caller.whole() == b""
        assert time.monotonic() - started > 0.2
    with Raw(live.url) as caller:
        caller.send(request()).some()
        caller.send(request(model="delay-700", more="connection: close\r\n"))
        assert caller.whole().startswith(b"HTTP/1.1 200 ")


class Wire:
    """A transport and the connection's side of an exchange."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.ended = False
        self.transport, self.writable, self.defaults = self, None, []

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def read_on(self) -> None:
        pass

    def end(self, exchange: Exchange) -> None:
        self.ended = True


def exchange(wire: Wire, *, method: str = "GET") -> Exchange:
    return Exchange(wire, {"method": method, "headers": [], "http_version": "1.1"}, keeps_open=True)


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize(
    "messages",
    [
        [part(b"x")],
        [start(), start()],
        [start(), part(b"x"), part(b"y")],
        [start(200, (b"content-length", b"3")), part(b"four")],
        [start(200, (b"content-length", b"3")), part(b"12")],
        [start(200, (b"transfer-encoding", b"chunked")), part(b"")],
        [start(200, (b"x-a", b"1\r\nx-b: 2")), part(b"")],
        [start(200, (b"x-a", b"1\x00")), part(b"")],
    ],
    ids=["no-head", "two-heads", "after-the-end", "too-long", "too-short", "framed-twice", "two-headers", "nul"],
)
async def test_what_is_no_answer_is_not_sent_as_one(messages):
    wire = Wire()
    one = exchange(wire)

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    await one.run(app, set())
    assert not wire.ended or wire.written.endswith(b"1\r\nx\r\n0\r\n\r\n")
    assert wire.closed or one.complete
    assert b"x-b" not in wire.written and b"four" not in wire.written


async def test_what_an_app_breaks_on_is_not_logged_in_its_words(caplog):
    wire = Wire()

    async def app(scope, receive, send):
        raise ValueError("a secret parcel")

    await exchange(wire).run(app, set())
    assert wire.closed and "ValueError" in caplog.text and "parcel" not in caplog.text


async def test_head_and_first_part_are_one_write_and_204_has_no_body():
    wire = Wire()
    writes = []
    wire.write = writes.append
    one = exchange(wire)
    await one.send(start(200, (b"content-length", b"2")))
    assert writes == []
    await one.send(part(b"ok"))
    assert writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"] and wire.ended
    writes.clear()
    two = exchange(wire)
    await two.send(start(204))
    await two.send(part(b"never"))
    assert writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]


async def test_who_watches_hears_of_a_departure_also_of_one_that_was():
    one = exchange(Wire())
    heard = []
    watch = one.scope["extensions"]["departure"]
    watch(lambda: heard.append("first"))
    watch(None)
    one.depart()
    assert heard == []
    watch(lambda: heard.append("late"))
    assert heard == ["late"]
    assert (await one.receive())["type"] == "http.disconnect"
    await one.send(start())
    assert one.started is False


async def test_a_body_beyond_what_anybody_asked_for_is_enough_for_now():
    one = exchange(Wire(), method="POST")
    assert not one.take(b"x" * 60_000)
    assert one.take(b"x" * 10_000)
    assert len((await one.receive())["body"]) == 70_000
    waiting = asyncio.create_task(one.receive())
    await asyncio.sleep(0)
    one.take(b"rest")
    one.take_end()
    assert await waiting == {"type": "http.request", "body": b"rest", "more_body": False}


def test_a_caller_who_leaves_in_the_middle_of_a_body_leaves_nothing_behind(live):
    with Raw(live.url) as caller:
        caller.send(HEAD + "content-length: 500\r\n\r\n").send(b"{")
    with Raw(live.url) as caller:
        assert caller.send(request(more="connection: close\r\n")).whole().startswith(b"HTTP/1.1 200 ")
    wait_for(lambda: len(live.teacher.seen) == 1)
    live.record()
