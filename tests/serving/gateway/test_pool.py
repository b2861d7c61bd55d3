"""Holds that answers come whole and in order however they are sent, and that no call gets a byte of another's."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway import connection
from serving.gateway.connection import LONGEST_HEAD, MOST_BUFFERED, Connection, Exchange, Silent
from serving.gateway.metrics import Metrics
from serving.gateway.pool import PooledUpstream
from serving.gateway.upstream import UnableToFinish, UnableToReach, UnableToReachInTime
from tests.fakes.provider import CHUNKED, WHOLE, Clock, Provider, Wire, parts, read_head, read_sent, serve, settled
from tests.fakes.serve import free_port


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], scope="module")
def event_loop_policy(request):
    """The gateway runs on the one; the other shows what is no accident of it."""
    return request.param()


@asynccontextmanager
async def pool(*, timeout: float = 5.0, allow_private: bool = True) -> AsyncIterator[tuple[PooledUpstream, Metrics]]:
    metrics = Metrics(snapshot=lambda: (0, 0))
    upstream = PooledUpstream(timeout=timeout, allow_private=allow_private, metrics=metrics)
    try:
        yield upstream, metrics
    finally:
        await upstream.close()


async def ask(upstream, url, *, method="POST", body=b"{}", headers=()):
    return await upstream.ask(method, url, "/v1/x?a=1", headers=list(headers), body=body)


async def read_all(reply) -> bytes:
    return b"".join([chunk async for chunk in chunks_of(reply)])


async def chunks_of(reply) -> AsyncIterator[bytes]:
    while chunk := await reply.read():
        yield chunk


@pytest.mark.parametrize("pieces", [0, 1, 2, 7])
@pytest.mark.parametrize("answer", [WHOLE, CHUNKED])
async def test_an_answer_is_whole_however_it_is_cut_and_its_connection_serves_again(answer, pieces):
    provider = Provider(answer, pieces=pieces)
    async with serve(provider) as url, pool() as (upstream, metrics):
        for _ in range(3):
            reply = await ask(upstream, url)
            assert (reply.status, await read_all(reply)) == (200, b"hello")
            assert await reply.read() == b""
    assert [len(heard) for heard in provider.heard] == [3]
    assert (metrics.connections_made, metrics.connections_reused) == (1, 2)


async def test_a_request_goes_out_as_it_was_given():
    provider = Provider(WHOLE)
    given_headers = [(b"x-b", "ä".encode("latin-1")), (b"x-a", b"1"), (b"x-b", b"2")]
    async with serve(provider) as url, pool() as (upstream, _):
        await read_all(await ask(upstream, url, headers=given_headers, body=b'{"a": 1e400}'))
        await read_all(await ask(upstream, url, method="GET", body=None))
        await read_all(await ask(upstream, url, method="DELETE", body=None))
    host = url.removeprefix("http://").encode()
    assert provider.heard == [
        [
            b"POST /v1/x?a=1 HTTP/1.1\r\nhost: " + host + b"\r\nx-b: \xe4\r\nx-a: 1\r\nx-b: 2\r\n"
            b'content-length: 12\r\n\r\n{"a": 1e400}',
            b"GET /v1/x?a=1 HTTP/1.1\r\nhost: " + host + b"\r\n\r\n",
            b"DELETE /v1/x?a=1 HTTP/1.1\r\nhost: " + host + b"\r\ncontent-length: 0\r\n\r\n",
        ]
    ]


@pytest.mark.parametrize("line", [b"x\r\nevil: 1", b"x\nevil: 1", b"x\revil: 1", b"x\x00"])
async def test_no_value_begins_a_line_of_its_own(line):
    provider = Provider(WHOLE)
    async with serve(provider) as url, pool() as (upstream, _):
        with pytest.raises(UnableToReach):
            await ask(upstream, url, headers=[(b"authorization", line)])
    assert provider.heard == []


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 2]
)
async def test_provisional_answers_are_not_the_answer(head):
    async with serve(Provider(head + WHOLE)) as url, pool() as (upstream, metrics):
        for _ in range(2):
            reply = await ask(upstream, url)
            assert (reply.status, reply.headers, await read_all(reply)) == (
                200,
                [(b"content-length", b"5"), (b"x-kept", b"Yes")],
                b"hello",
            )
    assert metrics.connections_reused == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", 304),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200),
    ],
)
async def test_an_answer_without_a_body_ends_with_its_head(answer, status):
    async with serve(Provider(answer)) as url, pool() as (upstream, metrics):
        for _ in range(2):
            reply = await ask(upstream, url)
            assert (reply.status, await read_all(reply)) == (status, b"")
            assert status == 200 or b"content-length" not in dict(reply.headers)
    assert metrics.connections_reused == 1


async def test_a_head_alone_has_no_body_whatever_length_it_tells():
    provider = Provider(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", WHOLE)
    async with serve(provider) as url, pool() as (upstream, _):
        reply = await ask(upstream, url, method="HEAD", body=None)
        assert (reply.headers, await read_all(reply)) == ([(b"content-length", b"5")], b"")
        assert await read_all(await ask(upstream, url)) == b"hello"
    assert len(provider.heard) == 2


async def test_a_body_may_end_with_the_connection():
    async with serve(Provider(b"HTTP/1.0 200 OK\r\n\r\nhel", closes=True)) as url, pool() as (upstream, metrics):
        for _ in range(2):
            assert await read_all(await ask(upstream, url)) == b"hel"
    assert metrics.connections_made == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
async def test_half_an_answer_is_told_from_a_whole_one(answer):
    async with serve(Provider(answer, closes=True)) as url, pool() as (upstream, _):
        reply = await ask(upstream, url)
        with pytest.raises(UnableToFinish):
            await read_all(reply)


@pytest.mark.parametrize(
    "answer",
    [
        b"220 smtp.example ESMTP\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 600 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 199 OK\r\ncontent-length: 5\r\n\r\nEVIL!" + WHOLE,
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (LONGEST_HEAD * 2),
        b"",
    ],
)
async def test_what_is_no_answer_is_an_error_and_not_a_retry(answer):
    async with serve(Provider(answer, closes=True)) as url, pool() as (upstream, _):
        with pytest.raises(UnableToReach) as caught:
            await ask(upstream, url)
    assert not caught.value.untouched and not caught.value.down


async def test_a_connection_that_its_provider_gives_up_is_not_used_again():
    closing = WHOLE.replace(b"X-Kept: Yes", b"connection: close")
    async with serve(Provider(closing)) as url, pool() as (upstream, metrics):
        for _ in range(2):
            assert await read_all(await ask(upstream, url)) == b"hello"
    assert (metrics.connections_made, metrics.connections_reused) == (2, 0)


@pytest.mark.parametrize("surplus", [WHOLE.replace(b"hello", b"EVIL!"), b"HTTP/1.1 200", b"garbage"])
async def test_more_than_was_asked_for_reaches_no_later_call(surplus):
    provider = Provider(WHOLE + surplus, WHOLE)
    async with serve(provider) as url, pool() as (upstream, metrics):
        got = [await read_all(await ask(upstream, url)) for _ in range(2)]
    assert got[-1] == b"hello" and metrics.connections_made == 2


async def test_what_comes_unasked_on_an_idle_connection_closes_it():
    told = asyncio.Event()

    async def speak_unasked(reader, writer):
        await read_sent(reader, await read_head(reader))
        writer.write(WHOLE)
        await told.wait()
        writer.write(WHOLE.replace(b"hello", b"EVIL!"))
        assert await reader.read() == b""  # closed at the other end
        closed.set()
        writer.close()

    closed = asyncio.Event()
    async with serve(speak_unasked) as url, pool() as (upstream, metrics):
        assert await read_all(await ask(upstream, url)) == b"hello"
        told.set()
        await asyncio.wait_for(closed.wait(), 5)
        told.clear()
        assert await read_all(await ask(upstream, url)) == b"hello"
        told.set()
    assert metrics.connections_made == 2


async def test_a_provider_that_says_nothing_is_given_up_in_time():
    async with serve(Provider(b"")) as url, pool(timeout=0.05) as (upstream, _):
        with pytest.raises(UnableToReachInTime) as caught:
            await ask(upstream, url)
    assert caught.value.down


async def test_a_provider_that_falls_silent_is_given_up_in_time():
    async with serve(Provider(WHOLE[:-2])) as url, pool(timeout=0.05) as (upstream, _):
        reply = await ask(upstream, url)
        assert await reply.read() == b"hel"
        with pytest.raises(UnableToFinish):
            await reply.read()


async def test_silence_is_counted_from_the_last_byte():
    clock = Clock()
    connection = Connection(timeout=10.0, freed=print, lost=print)
    connection._loop = clock
    connection.connection_made(Wire())
    exchange = connection.send(b"GET / HTTP/1.1\r\n\r\n", b"")
    for byte in WHOLE[:-1]:
        clock.advance(9.0)
        connection.data_received(bytes([byte]))
    clock.advance(9.0)
    assert exchange.failure is None
    clock.advance(1.0)
    assert isinstance(exchange.failure, Silent)


async def test_a_caller_who_reads_slowly_holds_the_provider_up_and_fills_no_memory():
    size, sent = 64 * MOST_BUFFERED, 0

    async def pour(reader, writer):
        nonlocal sent
        await read_sent(reader, await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        writer.transport.set_write_buffer_limits(high=0)
        while sent < size:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()

    async with serve(pour) as url, pool(timeout=0.2) as (upstream, _):
        reply = await ask(upstream, url)
        await settled(lambda: sent, seconds=0.3)  # longer than silence may last: it is we who do not read
        assert sent < size
        assert len(first := await reply.read()) < 3 * MOST_BUFFERED
        assert len(first) + len(await read_all(reply)) == size


async def test_hanging_up_closes_the_connection():
    gone = asyncio.Event()

    async def stream(reader, writer):
        await read_sent(reader, await read_head(reader))
        writer.write(WHOLE[:-2])
        await reader.read()
        gone.set()

    async with serve(stream) as url, pool() as (upstream, _):
        reply = await ask(upstream, url)
        reply.close()
        await asyncio.wait_for(gone.wait(), 5)
        with pytest.raises(UnableToFinish):
            await read_all(reply)


async def test_a_call_given_up_while_it_waits_closes_the_connection():
    gone = asyncio.Event()

    async def say_nothing(reader, writer):
        await reader.read()
        gone.set()

    async with serve(say_nothing) as url, pool() as (upstream, _):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(upstream, url), 0.1)
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_body_on_its_way_goes_in_chunks_or_as_long_as_it_says():
    provider = Provider(WHOLE)
    async with serve(provider) as url, pool() as (upstream, metrics):
        await read_all(await ask(upstream, url, body=parts(b"one", b"twelve bytes")))
        await read_all(await ask(upstream, url, body=parts(b"on", b"e"), headers=[(b"content-length", b"3")]))
    chunked, measured = provider.heard[0]
    assert chunked.partition(b"\r\n\r\n")[2] == b"3\r\none\r\nc\r\ntwelve bytes\r\n0\r\n\r\n"
    assert measured.partition(b"\r\n\r\n")[2] == b"one"
    assert metrics.connections_reused == 1


async def test_a_body_that_breaks_off_is_never_ended_as_if_it_were_whole():
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader, writer):
        heard.set_result(await reader.read())

    async def broken():
        yield b"one"
        raise ConnectionAbortedError

    async with serve(listen) as url, pool() as (upstream, _):
        with pytest.raises(UnableToReach) as caught:
            await ask(upstream, url, body=broken())
        assert not caught.value.untouched
        assert (await heard).endswith(b"3\r\none\r\n")


async def test_an_answer_may_come_before_all_of_the_body_and_ends_the_upload():
    ended = asyncio.Event()

    async def endless():
        try:
            while True:
                await asyncio.sleep(0.001)
                yield b"x" * 1000
        finally:
            ended.set()

    async def refuse(reader, writer):
        await read_head(reader)
        writer.write(WHOLE.replace(b"200 OK", b"413 Too Large"))
        await reader.read()

    async with serve(refuse) as url, pool() as (upstream, metrics):
        reply = await ask(upstream, url, body=endless())
        assert (reply.status, await read_all(reply)) == (413, b"hello")
        await asyncio.wait_for(ended.wait(), 5)
        assert metrics.connections_reused == 0


async def test_an_upload_waits_for_a_provider_that_takes_it_slowly():
    given_parts, heard = 0, 0

    async def many():
        nonlocal given_parts
        for _ in range(400):
            given_parts += 1
            yield b"x" * 65_536

    async def sip(reader, writer):
        nonlocal heard
        await read_head(reader)
        await started.wait()
        while heard < 400 * 65_536:
            heard += len(await reader.read(2**20))
        writer.write(WHOLE)

    started = asyncio.Event()
    async with serve(sip, limit=65_536) as url, pool() as (upstream, _):
        headers = [(b"content-length", b"%d" % (400 * 65_536))]
        asking = asyncio.ensure_future(ask(upstream, url, body=many(), headers=headers))
        await settled(lambda: given_parts, seconds=0.1)
        assert given_parts < 400
        started.set()
        assert await read_all(await asking) == b"hello"


@pytest.mark.parametrize(
    ("url", "untouched", "down"),
    [
        (lambda: f"http://127.0.0.1:{free_port()}", True, True),
        (lambda: "http://no-such-name.invalid", True, True),
        (lambda: f"http://{'a' * 70}.example", False, False),
        (lambda: "http://a..b", False, False),
        (lambda: "http://127.0.0.1:99999", False, False),
        (lambda: "ftp://127.0.0.1", False, False),
        (lambda: "http://", False, False),
    ],
)
async def test_whom_nobody_can_reach_is_told_apart_from_whom_nobody_may_ask(url, untouched, down):
    async with pool() as (upstream, _):
        with pytest.raises(UnableToReach) as caught:
            await ask(upstream, url())
    assert (caught.value.untouched, caught.value.down) == (untouched, down)


async def test_a_private_address_is_not_connected_to():
    provider = Provider(WHOLE)
    async with serve(provider) as url, pool(allow_private=False) as (upstream, _):
        for host in ("127.0.0.1", "localhost", "127.1"):
            with pytest.raises(UnableToReach):
                await ask(upstream, url.replace("127.0.0.1", host))
    assert provider.heard == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Key and certificate of a server that nobody vouches for."""
    home = tmp_path_factory.mktemp("tls")
    key, own = home / "key.pem", home / "own.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(own)], check=True, stderr=subprocess.DEVNULL)
    key.write_bytes(key.read_bytes() + own.read_bytes())
    return key


@asynccontextmanager
async def serve_tls(script, certificate) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with serve(script, ssl=context) as url:
        yield url.replace("http://127.0.0.1", "https://localhost")


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    provider = Provider(WHOLE)
    async with serve_tls(provider, certificate) as url, pool() as (upstream, metrics):
        with pytest.raises(UnableToReach) as caught:
            await ask(upstream, url)
        assert caught.value.down and provider.heard == []
        upstream._tls.load_verify_locations(certificate)
        for _ in range(2):
            assert await read_all(await ask(upstream, url)) == b"hello"
    assert b"host: localhost:" in provider.heard[-1][0]
    assert (metrics.connections_made, metrics.connections_reused) == (1, 1)


@pytest.mark.parametrize("said", [b"", b"220 smtp.example ESMTP\r\n"])
async def test_a_server_that_closes_before_tls_is_told_at_once(said):
    async def close(reader, writer):
        writer.write(said)
        writer.close()

    async with serve(close) as url, pool(timeout=60.0) as (upstream, _), asyncio.timeout(20):
        for _ in range(8):
            with pytest.raises(UnableToReach) as caught:
                await ask(upstream, url.replace("http://127.0.0.1", "https://localhost"))
            assert caught.value.down and not isinstance(caught.value, UnableToReachInTime)


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_body_that_ends_with_the_connection_is_whole_only_if_tls_says_so(certificate, is_cut):
    async def speak(reader, writer):
        await read_sent(reader, await read_head(reader))
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhel")
        await writer.drain()
        if is_cut:
            writer.transport.abort()
        else:
            writer.close()

    async with serve_tls(speak, certificate) as url, pool() as (upstream, _):
        upstream._tls.load_verify_locations(certificate)
        if not is_cut:
            assert await read_all(await ask(upstream, url)) == b"hel"
            return
        if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
            pytest.skip("asyncio's own TLS does not tell the two apart")
        with pytest.raises((UnableToFinish, UnableToReach)):
            await read_all(await ask(upstream, url))


async def test_a_last_answer_that_is_read_slowly_is_whole(certificate):
    size = 16 * MOST_BUFFERED

    async def pour(reader, writer):
        await read_sent(reader, await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size)
        writer.write(b"x" * size)
        writer.close()

    async with serve_tls(pour, certificate) as url, pool() as (upstream, _):
        upstream._tls.load_verify_locations(certificate)
        reply, got = await ask(upstream, url), 0
        while chunk := await reply.read():
            got += len(chunk)
            await asyncio.sleep(0.01)
    assert got == size


@pytest.mark.parametrize("is_secure", [True, False])
async def test_no_call_waits_behind_what_is_left_of_another(certificate, is_secure):
    connected = 0

    async def refuse(reader, writer):
        nonlocal connected
        connected += 1
        await read_head(reader)
        writer.write(WHOLE)
        await over.wait()
        writer.close()

    over = asyncio.Event()
    start = serve_tls(refuse, certificate) if is_secure else serve(refuse, limit=65_536)
    async with start as url, pool() as (upstream, metrics):
        upstream._tls.load_verify_locations(certificate)
        for _ in range(2):
            assert await read_all(await ask(upstream, url, body=b"x" * 50_000_000)) == b"hello"
        over.set()
    assert (connected, metrics.connections_reused) == (2, 0)


@pytest.mark.parametrize(
    "begun", [b"5\r\nhello\r\n0\r\nx: ", b"5\r\nhello\r\n5;x=", b"5\r\nhello\r\n0\r\n" + b"x: y\r\n" * 99]
)
async def test_what_follows_a_body_without_end_is_not_taken_without_end(begun):
    async def pour(reader, writer):
        await read_sent(reader, await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + begun)
        with suppress(ConnectionError):
            while True:
                writer.write(b"y" * 65_536)
                await writer.drain()
        stopped.set()
        writer.close()

    stopped = asyncio.Event()
    async with serve(pour) as url, pool() as (upstream, _):
        with pytest.raises(UnableToFinish):
            await read_all(await ask(upstream, url))
        await asyncio.wait_for(stopped.wait(), 5)


@pytest.mark.skipif(not connection.__file__.endswith(".py"), reason="no compiled class has its methods replaced")
@pytest.mark.parametrize(("answer", "is_whole"), [(WHOLE, True), (WHOLE[:-2], False)])
async def test_a_call_given_up_as_its_answer_comes_leaves_no_connection_behind(monkeypatch, answer, is_whole):
    gone = asyncio.Event()

    async def speak(reader, writer):
        while head := await read_head(reader):
            await read_sent(reader, head)
            writer.write(answer)
        gone.set()
        writer.close()

    def wake(exchange):
        woken(exchange)
        if exchange.status:
            asking.cancel()

    woken = Exchange.wake
    async with serve(speak) as url, pool() as (upstream, metrics):
        monkeypatch.setattr(Exchange, "wake", wake)
        asking = asyncio.ensure_future(ask(upstream, url))
        with pytest.raises(asyncio.CancelledError):
            await asking
        monkeypatch.undo()
        if is_whole:
            assert await read_all(await ask(upstream, url)) == b"hello"
        else:
            await asyncio.wait_for(gone.wait(), 5)
    assert metrics.connections_reused == is_whole


async def test_an_upload_that_nobody_takes_is_given_up_in_time():
    async def many():
        for _ in range(4000):
            yield b"x" * 65_536

    async def read_nothing(reader, writer):
        await over.wait()
        writer.close()

    over = asyncio.Event()
    async with serve(read_nothing, limit=65_536) as url, pool(timeout=0.2) as (upstream, _):
        with pytest.raises(UnableToReachInTime):
            await ask(upstream, url, body=many())
        over.set()


async def test_a_head_may_be_asked_for_with_a_body():
    provider = Provider(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    async with serve(provider) as url, pool(timeout=1.0) as (upstream, _):
        assert await read_all(await ask(upstream, url, method="HEAD", body=parts(b"one"))) == b""


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_no_call_follows_a_body_that_a_server_may_not_have_expected(method):
    async with serve(Provider(WHOLE)) as url, pool() as (upstream, metrics):
        for body in (b"GET / HTTP/1.1\r\n\r\n", None, None):
            assert await read_all(await ask(upstream, url, method=method, body=body)) == b"hello"
    assert (metrics.connections_made, metrics.connections_reused) == (2, 1)


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_an_empty_body_is_told_once(method):
    provider = Provider(WHOLE)
    async with serve(provider) as url, pool() as (upstream, _):
        await read_all(await ask(upstream, url, method=method, body=None, headers=[(b"content-length", b"0")]))
    assert provider.heard[0][0].count(b"content-length: 0") == 1


async def test_a_part_without_bytes_does_not_end_a_body():
    provider = Provider(WHOLE)
    async with serve(provider) as url, pool() as (upstream, _):
        await read_all(await ask(upstream, url, body=parts(b"one", b"", b"two")))
    assert provider.heard[0][0].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_many_calls_at_once_get_each_its_own_answer():
    async def echo(reader, writer):
        while head := await read_head(reader):
            body = await read_sent(reader, head)
            await asyncio.sleep(0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def one(upstream, url, number):
        sent = json.dumps(number).encode()
        return await read_all(await ask(upstream, url, body=sent)) == sent

    async with serve(echo) as url, pool() as (upstream, metrics):
        for _ in range(5):
            assert all(await asyncio.gather(*(one(upstream, url, number) for number in range(100))))
    assert metrics.connections_made <= 100 and metrics.connections_reused >= 400


@settings(deadline=None, max_examples=50)  # each opens a connection
@given(body=st.binary(max_size=400), cuts=st.lists(st.integers(0, 600), max_size=12), chunk=st.integers(1, 80))
async def test_no_cut_changes_a_byte(body, cuts, chunk):
    pieces = [body[start : start + chunk] for start in range(0, len(body), chunk)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed
    edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})

    async def cut_up(reader, writer):
        await read_sent(reader, await read_head(reader))
        for start, end in pairwise(edges):
            writer.write(answer[start:end])
            await writer.drain()
            await asyncio.sleep(0)

    async with serve(cut_up) as url, pool() as (upstream, _):
        assert await read_all(await ask(upstream, url)) == body
