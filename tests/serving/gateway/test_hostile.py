"""Callers who send too much, too slowly, or what no server agrees on: they are told once, and nobody else notices."""

import asyncio
import json
import socket
import time

import pytest

from serving.gateway import protocol
from tests.fakes.serve import wait_for
from tests.serving.gateway.cast import PLAIN, Stage, openai_ask, post

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {PLAIN.plain}\r\n"
BODY = json.dumps(openai_ask()).encode()


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
        assert not live.record().complete
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
