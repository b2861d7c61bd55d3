"""HTTP/1.1 towards callers, byte by byte: what the gateway says on a connection, and when it lets go of it."""

import asyncio
import json
import time

import pytest

from serving.gateway import protocol
from serving.gateway.exchange import CallerExchange
from serving.gateway.wire import Gone
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


def test_whoever_is_refused_before_the_body_is_whole_may_finish_it_and_is_then_hung_up_on(live):
    body = json.dumps(openai_ask()).encode()
    stranger = HEAD.replace(PLAIN.plain, "nobody") + f"content-length: {len(body)}\r\n\r\n"
    with Raw(live.url) as caller:
        assert caller.send(stranger).send(body[:20]).some().startswith(b"HTTP/1.1 401 ")
        assert caller.send(body[20:]).send(request()).whole() == b""
    assert live.teacher.seen == []


@pytest.mark.parametrize("bound", ["MOST_DRAINED", "DRAIN_SECONDS"])
def test_what_nobody_waits_for_any_more_is_not_read_for_ever(live, monkeypatch, bound):
    monkeypatch.setattr(protocol, bound, 1000 if bound == "MOST_DRAINED" else 0.3)
    with Raw(live.url) as caller:
        caller.send(HEAD.replace(PLAIN.plain, "nobody") + "content-length: 500000000\r\n\r\n")
        assert caller.some().startswith(b"HTTP/1.1 401 ")

        def is_gone() -> bool:
            try:
                caller.send(b"x" * 100)
            except OSError:
                return True
            return False

        wait_for(is_gone, every=0.01)


@pytest.mark.parametrize("ends", [True, False], ids=["read whole", "read in part"])
async def test_whoever_leaves_is_noticed_however_long_the_prompt_was(live, ends):
    body = json.dumps(openai_ask("silent", query="x" * 200_000)).encode()
    _, writer = await asyncio.open_connection(*live.url.removeprefix("http://").split(":"))
    writer.write(f"{HEAD}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.to_thread(wait_for, lambda: live.teacher.seen)
    if ends:
        writer.close()
    else:
        writer.transport.abort()
    await asyncio.to_thread(wait_for, lambda: live.teacher.left == 1)
    assert not (await asyncio.to_thread(live.record)).complete


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
        self.was_cut = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def read_on(self) -> None:
        pass

    def end(self, exchange: CallerExchange) -> None:
        self.ended = True

    def hang_up(self) -> None:
        self.closed = True

    def cut(self) -> None:
        self.closed = self.was_cut = True


def exchange(wire: Wire, *, method: str = "GET", version: str = "1.1", headers=()) -> CallerExchange:
    """One whose request is whole, if it is a GET."""
    scope = {"method": method, "headers": list(headers), "http_version": version}
    made = CallerExchange(wire, scope, keeps_open=version == "1.1")
    if method == "GET":
        made.take_end()
    return made


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> dict:
    return {"type": "http.response.body", "body": body, "more_body": more}


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        ([part(b"x")], b""),
        ([start(), start()], b""),
        ([start(), part(b"x"), part(b"y")], CHUNKED + b"1\r\nx\r\n0\r\n\r\n"),
        ([start(200, (b"content-length", b"3")), part(b"four")], b""),
        ([start(200, (b"content-length", b"3")), part(b"12")], b""),
        ([start(200, (b"transfer-encoding", b"chunked")), part(b"")], b""),
        ([start(200, (b"x-a", b"1\r\nx-b: 2")), part(b"")], b""),
        ([start(200, (b"x-a", b"1\x00")), part(b"")], b""),
        ([start(), part(b"half", more=True)], CHUNKED + b"4\r\nhalf\r\n"),
    ],
    ids=["no-head", "two-heads", "after-the-end", "too-long", "too-short", "framed-twice", "two-headers", "nul", "cut"],
)
async def test_what_is_no_answer_is_not_sent_as_one_and_the_connection_is_closed(messages, written):
    wire = Wire()
    one = exchange(wire)

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    await one.run(app, set())
    assert wire.written == written
    assert wire.closed is not one.complete and not wire.was_cut


async def test_half_an_answer_without_an_end_of_its_own_is_cut_so_that_it_shows():
    wire = Wire()

    async def app(scope, receive, send):
        await send(start())
        await send(part(b"half", more=True))

    await exchange(wire, version="1.0").run(app, set())
    assert wire.written == OK + b"connection: close\r\n\r\nhalf" and wire.was_cut


@pytest.mark.parametrize(
    ("version", "value", "asked"),
    [
        ("1.1", b"100-continue", True),
        ("1.1", b"100-Continue", True),
        ("1.0", b"100-continue", False),
        ("1.1", b"x", False),
    ],
)
async def test_we_say_go_on_where_that_is_waited_for_and_nowhere_else(version, value, asked):
    for arrived in (False, True):
        wire = Wire()
        one = exchange(wire, method="POST", version=version, headers=[(b"expect", value)])
        if arrived:
            one.take(b"body")
        receiving = asyncio.create_task(one.receive())
        await asyncio.sleep(0)
        assert wire.written == (b"HTTP/1.1 100 Continue\r\n\r\n" if asked and not arrived else b"")
        one.depart()
        await receiving
    gone = exchange(Wire(), method="POST", headers=[(b"expect", b"100-continue")])
    gone.depart()
    await gone.receive()
    assert gone._line.written == b""


async def test_what_is_answered_before_it_is_whole_is_the_last_on_its_connection():
    wire = Wire()
    one = exchange(wire, method="POST")
    await one.send(start(401, (b"content-length", b"0")))
    await one.send(part(b""))
    assert b"connection: close" in wire.written and not one.keeps_open


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
    with pytest.raises(Gone):
        watch(lambda: heard.append("late"))
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
