"""Callers who send too much, too slowly, or what no server agrees on: they are told once, and nobody else notices."""

import asyncio
import gc
import json
import socket
import time
from contextlib import suppress

import pytest

from serving.gateway import protocol, server
from serving.gateway.protocol import CallerConnection
from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import PLAIN, Stage, openai_ask, opened, post, serve_gateway

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {PLAIN.plain}\r\n"
BODY = json.dumps(openai_ask()).encode()
MOST_FOR_NOBODY = 3_000_000  # bytes of an answer that are taken from its provider while its caller takes none


class Raw:
    """A caller without any library."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes | str) -> "Raw":
        self._socket.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def whole(self) -> bytes:
        """Everything until the server hangs up."""
        parts = []
        try:
            while part := self._socket.recv(65_536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)

    def some(self) -> bytes:
        """What comes next."""
        return self._socket.recv(65_536)

    def refusal(self) -> tuple[int, str]:
        """The status and the error's type of the one answer there is."""
        head, _, body = self.whole().partition(b"\r\n\r\n")
        assert b"content-type: application/json" in head and b"connection: close" in head
        return int(head.split()[1]), json.loads(body)["error"]["type"]


def assert_others_are_served(live: Stage) -> None:
    assert asyncio.run(post(live.url, json=openai_ask())).status == 200


@pytest.mark.parametrize(
    "head",
    [
        HEAD + "x-long: " + "a" * 100_000 + "\r\n",
        HEAD + "".join(f"x-{number}: {'b' * 100}\r\n" for number in range(1000)),
        HEAD.replace("completions", "completions?" + "q" * 70_000),
    ],
    ids=["one header", "many headers", "the address"],
)
def test_a_head_that_is_too_long_is_refused_whether_it_ends_or_not(live, head):
    with Raw(live.url) as caller:
        assert caller.send(head + f"content-length: {len(BODY)}\r\n\r\n").send(BODY).refusal()[0] == 431
    with Raw(live.url) as caller:
        assert caller.send(head).refusal() == (431, "invalid_request_error")
    assert_others_are_served(live)
    assert len(live.teacher.seen) == 1


def test_a_head_as_long_as_allowed_passes(live):
    with Raw(live.url) as caller:
        caller.send(HEAD + "x-long: " + "a" * 60_000 + f"\r\nconnection: close\r\ncontent-length: {len(BODY)}\r\n\r\n")
        assert caller.send(BODY).whole().startswith(b"HTTP/1.1 200")


def test_a_head_or_a_body_that_does_not_go_on_is_told_so_and_hung_up_on(live, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    with Raw(live.url) as caller:
        assert caller.send(HEAD).refusal() == (408, "timeout_error")
    with Raw(live.url) as caller:
        assert caller.send(HEAD + "content-length: 1000\r\n\r\n").send(BODY[:50]).refusal() == (408, "timeout_error")
    assert live.teacher.seen == []
    assert_others_are_served(live)


def test_a_connection_on_which_nothing_is_asked_is_hung_up_on_without_a_word(live, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with Raw(live.url) as caller:
        assert caller.whole() == b""


def test_a_slow_body_that_goes_on_is_waited_for(live, monkeypatch):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 2.0)
    with Raw(live.url) as caller:
        caller.send(HEAD + f"connection: close\r\ncontent-length: {len(BODY)}\r\n\r\n")
        for byte in BODY[:-1]:
            caller.send(bytes([byte]))
        assert caller.send(BODY[-1:]).whole().startswith(b"HTTP/1.1 200")


def test_a_call_that_takes_long_is_not_taken_for_a_slow_caller(live, monkeypatch):
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "READER_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.1)
    body = json.dumps(openai_ask("delay-500")).encode()
    with Raw(live.url) as caller:
        started = time.monotonic()
        caller.send(HEAD + f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n").send(body)
        assert caller.whole().startswith(b"HTTP/1.1 200")
        assert time.monotonic() - started >= 0.5


def test_who_does_not_read_is_hung_up_on_and_so_is_the_provider_and_the_call_is_recorded(live, monkeypatch):
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.3)
    body = json.dumps(openai_ask("flood", stream=True)).encode()
    with Raw(live.url) as caller:
        caller.send(HEAD + f"content-length: {len(body)}\r\n\r\n").send(body)
        wait_for(lambda: live.teacher.left == 1)
        record = live.record()
        assert not record.complete
        assert len(opened(record, "response")) < MOST_FOR_NOBODY
    assert_others_are_served(live)


@pytest.mark.parametrize(
    "odd",
    [
        f"content-length: {len(BODY)}\r\ntransfer-encoding: chunked\r\n\r\n",
        f"content-length: {len(BODY)}\r\ncontent-length: 3\r\n\r\n",
        "content-length: +5\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n",
        "x-odd: \x00\r\n\r\n",
        "x odd: 1\r\n\r\n",
        " folded: 1\r\n\r\n",
    ],
)
def test_what_two_servers_could_take_differently_is_taken_by_none(live, odd):
    with Raw(live.url) as caller:
        assert caller.send(HEAD + odd).send(BODY).refusal() == (400, "invalid_request_error")
    assert live.teacher.seen == []
    assert_others_are_served(live)


def test_nothing_is_said_into_an_earlier_request_s_answer(live):
    first = json.dumps(openai_ask("delay-300")).encode()
    with Raw(live.url) as caller:
        caller.send(HEAD + f"content-length: {len(first)}\r\n\r\n").send(first)
        wait_for(lambda: live.teacher.seen)
        assert caller.send("NONSENSE\r\n\r\n").whole() == b""


@pytest.mark.parametrize(
    "endless",
    [b"a: " + b"x" * 1000, b"a: b\r\n" * 100, b"0;" + b"x" * 1000],
    ids=["a trailer", "trailers", "a chunk's extension"],
)
def test_what_frames_a_body_has_an_end(live, endless):
    start = f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode()
    last = b"" if endless.startswith(b"0;") else b"0\r\n"
    with Raw(live.url) as caller:
        caller.send(start + b"2\r\n{}\r\n" + last)
        sent = 0
        try:
            for _ in range(5000):
                caller.send(endless)
                sent += len(endless)
        except OSError:
            pass
    assert sent < 5_000_000
    assert_others_are_served(live)


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/v1/models", "/v1/chat/completions"])
def test_after_an_upgrade_nothing_is_taken_for_a_request(live, path):
    head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PLAIN.plain}\r\n"
    inner = HEAD.encode() + f"content-length: {len(BODY)}\r\n\r\n".encode() + BODY
    with Raw(live.url) as caller:
        caller.send(head + f"connection: upgrade\r\nupgrade: foo\r\ncontent-length: {len(inner)}\r\n\r\n")
        first = caller.some()
        assert first.startswith(b"HTTP/1.1 ") and b"connection: close" in first
        try:
            rest = caller.send(inner).whole()
        except OSError:
            rest = b""
    assert b"HTTP/1.1" not in rest and live.teacher.seen == []


@pytest.mark.parametrize("then", [b"", b"not a chunk\r\n"], ids=["a stall", "no chunk"])
def test_no_request_is_answered_twice(live, monkeypatch, then):
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", 0.3)
    stranger = HEAD.replace(PLAIN.plain, "nobody")
    with Raw(live.url) as caller:
        caller.send(stranger + "transfer-encoding: chunked\r\n\r\n").send(b"2\r\n{}\r\n" + then)
        assert caller.whole().count(b"HTTP/1.1 ") == 1


def test_a_pipeline_without_end_is_cut_after_some(live):
    first = json.dumps(openai_ask("delay-300")).encode()
    with Raw(live.url) as caller:
        caller.send(HEAD + f"content-length: {len(first)}\r\n\r\n").send(first)
        caller.send(b"GET /healthz HTTP/1.1\r\n\r\n" * 5000)
        assert caller.whole().count(b"HTTP/1.1 200 ") == 1 + protocol.MOST_QUEUED


def test_the_head_of_a_request_that_waits_its_turn_is_not_late(live, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.1)
    slow = json.dumps(openai_ask("delay-600")).encode()
    call = f"{HEAD}content-length: {len(slow)}\r\n\r\n".encode() + slow
    with Raw(live.url) as caller:
        caller.send(call + call + b"GET /healthz HTT")
        got = caller.some()
        while got.count(b"HTTP/1.1 200 ") < 2:
            part = caller.some()
            assert part, "hung up on before both calls were answered"
            got += part


def test_a_long_body_before_a_head_does_not_make_the_head_long(live):
    long = json.dumps(openai_ask(query="x" * 150_000)).encode()
    call = f"{HEAD}content-length: {len(long)}\r\n\r\n".encode() + long
    with Raw(live.url) as caller:
        caller.send(call + b"GET /healthz HTTP/1.1\r\n")
        got = caller.some()
        assert got.startswith(b"HTTP/1.1 200 ")
        caller.send(b"connection: close\r\n\r\n")
        assert caller.whole().endswith(b"ok\n")


def test_who_reads_nothing_is_gone_in_a_while_also_where_little_waits(live, monkeypatch):
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "UNUSED_SECONDS", 0.3)
    host, _, port = live.url.removeprefix("http://").partition(":")
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        caller.connect((host, int(port)))
        caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 12)

        def is_gone() -> bool:
            try:
                caller.sendall(b"G")
            except OSError:
                return True
            return False

        wait_for(is_gone, every=0.05)
    assert_others_are_served(live)


def test_who_half_closes_and_reads_nothing_is_gone_in_a_while(stage, monkeypatch):
    monkeypatch.setattr(protocol, "READER_SECONDS", 0.3)
    stage.publish()
    with serve_gateway(stage) as gateway, socket.socket() as caller:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        caller.connect((host, int(port)))
        caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 12)
        caller.shutdown(socket.SHUT_WR)
        state = gateway._server.server_state
        wait_for(lambda: state.total_requests >= 1)
        wait_for(lambda: not state.connections, every=0.05)


@pytest.mark.parametrize("body", [BODY, b"{"], ids=["answered", "refused"])
def test_a_connection_that_is_closed_is_gone_without_the_garbage_collector(stage, body):
    """Its rounds hold up every call: one over five thousand closed connections took a tenth of a second."""
    stage.publish()
    gc.collect()
    gc.disable()
    try:
        with serve_gateway(stage) as gateway:
            with Raw(gateway.url) as caller:
                caller.send(f"{HEAD}content-length: {len(body)}\r\n\r\n").send(body).some()
                assert count_connections() == 1
            wait_for(lambda: count_connections() == 0, every=0.05)
    finally:
        gc.enable()


def count_connections():
    return sum(isinstance(found, CallerConnection) for found in gc.get_objects())


def test_beyond_so_many_connections_callers_are_hung_up_on_and_those_who_are_there_answered(stage, monkeypatch):
    monkeypatch.setattr(server, "most_connections", lambda: 2)
    stage.publish()
    with serve_gateway(stage) as gateway:
        wait_for(lambda: not gateway._server.server_state.connections, every=0.05)
        with Raw(gateway.url) as one, Raw(gateway.url) as two:
            for caller in (one, two):
                caller.send(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert b"200 OK" in caller.some()
            with Raw(gateway.url) as more, suppress(ConnectionError):
                more.send(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert more.some() == b""
            one.send(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert b"200 OK" in one.some()


def test_as_many_connections_fit_as_there_are_files_for_them(monkeypatch):
    unbounded = server.resource.RLIM_INFINITY
    for allowed, expected in ((1_048_576, 524_160), (1024, 384), (100, 25), (unbounded, None)):
        monkeypatch.setattr(server.resource, "getrlimit", lambda which, allowed=allowed: (allowed, allowed))
        assert server.most_connections() == expected


def test_the_last_of_a_pipeline_may_bring_its_body_later(live):
    slow = json.dumps(openai_ask("delay-300")).encode()
    head = f"{HEAD}content-length: {len(BODY)}\r\n\r\n".encode()
    with Raw(live.url) as caller:
        caller.send(f"{HEAD}content-length: {len(slow)}\r\n\r\n".encode() + slow)
        wait_for(lambda: live.teacher.seen)
        caller.send(b"GET /healthz HTTP/1.1\r\n\r\n" * (protocol.MOST_QUEUED - 1) + head)
        caller.send(BODY)
        assert caller.whole().count(b"HTTP/1.1 200 ") == 1 + protocol.MOST_QUEUED
    live.records(2)
