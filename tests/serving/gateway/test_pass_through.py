"""Holds that what no student could do reaches the tenant's provider as it was sent, bounded, and is billed as told."""

import asyncio
import json

import aiohttp
import openai
import pytest
from yarl import URL

from serving.core.limits import LimitEntry
from serving.core.snapshot import ProviderEntry
from serving.gateway.memory import Hold, Memory
from serving.gateway.pass_through import BrokenOff, Uplink
from tests.fakes.serve import Served, wait_for
from tests.fakes.teacher import CONTENT, EMBEDDED
from tests.serving.gateway.cast import PLAIN, down, get, openai_ask, opened, post, serve_gateway, talk_to

KEY = {"authorization": f"Bearer {PLAIN.plain}"}


async def in_parts(*parts: bytes):
    for part in parts:
        yield part


def test_embeddings_are_the_providers_and_their_tokens_are_known(live, talk):
    answer = talk.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input="x", encoding_format="float"
    )
    assert answer.parse().data[0].embedding == [0.5, -0.5]
    assert answer.headers["x-understudy-arm"] == "teacher"
    record = live.record()
    assert answer.headers["x-understudy-call"] == record.id
    assert (record.reason, record.asked_model) == ("passed_through", "text-embedding-3-small")
    assert (record.input_tokens, record.output_tokens, record.usage_estimated) == (9, 0, False)
    assert json.loads(opened(record, "request"))["input"] == "x" and opened(record, "response") == EMBEDDED
    assert (record.fingerprint, record.workload_id) == ("", None)


def test_whose_call_it_was_is_known_where_it_says_so(live, talk):
    """An erasure finds what passed through by it."""
    talk.embeddings.create(model="text-embedding-3-small", input="x", user="anna")
    talk.embeddings.create(model="text-embedding-3-small", input="x", extra_body={"user": {"odd": 1}})
    named, odd = live.records(2)
    assert len(named.subject_hmac) == 64 and not odd.subject_hmac
    assert odd.request_sealed and opened(odd, "request") == b""


def test_a_file_goes_up_by_the_sdk_and_is_no_pair_to_keep(live, talk):
    assert talk.files.create(file=("a.jsonl", b"{}" * 9), purpose="batch").id == "file-1"
    seen = live.teacher.seen[0]
    assert b"{}" * 9 in seen.body and seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert int(seen.headers["content-length"]) == len(seen.body)
    record = live.record()
    assert (record.request_sealed and opened(record, "request")) == b"" and record.asked_model == ""


def test_a_count_of_tokens_is_not_a_use_of_them(live, claude):
    counted = claude.messages.count_tokens(model="claude-sonnet-5-5", messages=[{"role": "user", "content": "x"}])
    assert counted.input_tokens == 12
    record = live.record()
    assert (record.dialect, record.asked_model) == ("anthropic", "claude-sonnet-5-5")
    assert (record.input_tokens, record.output_tokens, record.usage_estimated) == (0, 0, False)


async def test_what_is_longer_than_a_call_may_be_goes_up_in_parts(stage):
    stage.publish()
    with serve_gateway(stage, max_body_bytes=1024) as gateway:
        parts = [bytes([65 + number]) * 3000 for number in range(20)]
        got = await post(gateway.url, path="/v1/files?x=1", data=in_parts(*parts))
    assert (got.status, json.loads(got.body)["bytes"]) == (201, 60_000)
    seen = stage.teacher.seen[0]
    assert (seen.path, seen.body) == ("/v1/files?x=1", b"".join(parts))
    assert stage.record().status == 201


@pytest.mark.parametrize("announced", [True, False])
async def test_more_than_may_pass_is_refused(stage, announced):
    stage.publish()
    with serve_gateway(stage, max_passed_bytes=4096) as gateway:
        body = b"x" * 5000 if announced else in_parts(b"x" * 2500, b"x" * 2500)
        got = await post(gateway.url, path="/v1/files", data=body)
    error = json.loads(got.body)["error"]
    assert (got.status, error["message"]) == (413, "The request is larger than 4096 bytes.")


async def test_a_sound_comes_down_as_it_is_and_is_not_kept(live):
    got = await post(live.url, path="/v1/audio/speech/content", json={"model": "tts-1", "input": "x"})
    assert (got.body, got.headers["content-type"]) == (b"".join(CONTENT), "audio/mpeg")
    record = live.record()
    assert (record.complete, record.asked_model, record.response_sealed) == (True, "tts-1", None)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
async def test_other_methods_pass_too(live, method):
    async with aiohttp.ClientSession() as http, http.request(method, f"{live.url}/v1/files/1", headers=KEY) as got:
        assert (got.status, (await got.json())["method"]) == (201, method)
    assert live.teacher.seen[0].headers["authorization"] == "Bearer teacher-openai"
    assert live.record().reason == "passed_through"


async def test_looking_something_up_asks_no_model_and_leaves_no_record(live):
    got = await get(f"{live.url}/v1/files/1/content?after=2", headers=KEY)
    assert got.body == b"".join(CONTENT)
    assert live.teacher.seen[0].path == "/v1/files/1/content?after=2"
    await post(live.url, path="/v1/embeddings", json={"model": "text-embedding-3-small"})
    assert live.record().asked_model == "text-embedding-3-small", "and nothing before it"


@pytest.mark.parametrize("path", ["/v1/files", "/v1/embeddings"])
async def test_nobody_passes_without_a_key(live, path):
    for key in ("", "us_wrong"):
        assert (await post(live.url, path=path, key=key, data=b"{}")).status == 401
    assert live.teacher.seen == []


@pytest.mark.parametrize("path", ["/", "/v2/files", "/v1", "/openai", "/azure/openai/v1/files", "/metrics/v1/"])
async def test_only_what_lies_below_v1_passes(live, path):
    assert (await post(live.url, path=path, data=b"{}")).status == 404
    assert live.teacher.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/x/..",
        "/v1/./files",
        "/v1/%2E%2e/admin",
        "/v1/x%2f..%2f..%2fadmin",
        "/v1/x/..%5Cadmin",
        "/v1//x",
    ],
)
async def test_no_path_leads_out_of_v1(live, path):
    url = URL(f"{live.url}{path}", encoded=True)
    async with aiohttp.ClientSession() as http, http.post(url, headers=KEY, data=b"{}") as got:
        assert got.status == 404
    assert live.teacher.seen == []


@pytest.mark.parametrize(
    "path",
    ["/v1/chat/completions/", "/v1/chat%2Fcompletions", "/v1/%63hat/completions", "/v1/Messages", "/v1/responses;x=1"],
)
async def test_a_call_that_is_answered_here_does_not_pass_by_another_spelling(live, path):
    got = await post(live.url, path=path, json=openai_ask())
    assert got.status == 404 and live.teacher.seen == []


@pytest.mark.parametrize("path", ["/v1/organization/admin_api_keys", "/v1/realtime/client_secrets", "/v1/chatkit/x"])
async def test_nobody_reaches_the_provider_s_account_or_makes_tokens_of_his_own(live, path):
    for got in (await post(live.url, path=path, json={}), await get(f"{live.url}{path}", headers=KEY)):
        assert got.status == 404
    assert live.teacher.seen == []


async def test_a_look_is_not_made_a_call_by_a_header(live):
    await get(f"{live.url}/v1/files", headers={**KEY, "x-http-method-override": "POST"})
    assert "x-http-method-override" not in live.teacher.seen[0].headers


async def test_what_wants_another_protocol_is_refused_and_reaches_no_connection_of_others(live):
    """The server takes such a request for one without a body, whatever length it announces."""
    host, port = live.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {PLAIN.plain}\r\n"
    writer.write(f"{head}connection: upgrade\r\nupgrade: x\r\ncontent-length: 600\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)  # to its end: the connection is closed
    assert answer.startswith(b"HTTP/1.1 400 ") and live.teacher.seen == []
    writer.close()


@pytest.mark.parametrize(("announced", "refused"), [(b"600", 400), (b"3", 400), (b"04", None), (b"", None)])
async def test_a_body_that_is_not_as_long_as_announced_breaks_the_call(announced, refused):
    messages = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"cd"}]

    async def receive():
        return messages.pop(0) if messages else await asyncio.Event().wait()

    hold = Hold(Memory(1000, most_calls=1))
    with Uplink(receive, lambda call: None, limit=100, kept=100, hold=hold, announced=announced) as uplink:
        if refused is None:
            assert await uplink.whole() == uplink.kept == b"abcd"
            return
        with pytest.raises(BrokenOff):
            await uplink.whole()
    assert uplink.refusal.status == refused


async def test_what_the_provider_has_not_taken_is_held_and_there_is_a_bound(monkeypatch):
    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x" * 600, "more_body": True}

    hold = Hold(Memory(1000, most_calls=1))
    with Uplink(receive, lambda call: None, limit=10**9, kept=0, hold=hold) as uplink:
        async with asyncio.timeout(5):
            while uplink.refusal is None:
                await asyncio.sleep(0)
        assert hold.held == 600 and uplink.refusal.status == 429
        with pytest.raises(BrokenOff):
            [part async for part in uplink.parts()]
        assert hold.held == 0


async def completions(scope, receive, send):
    """A provider of the older completions that streams, and tells no usage."""
    if scope["type"] == "lifespan":
        return
    await receive()
    kind = b"application/json" if b"whole" in scope["query_string"] else b"text/event-stream"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    said = b'{"choices":[{"index":0,"text":"%b"}]}' % (b"word " * 400)
    odd = b'{"completion":"%b"}' % (b"word " * 400)
    said = odd if b"odd" in scope["query_string"] else said
    body = said if kind == b"application/json" else b"data: " + said + b"\n\ndata: [DONE]\n\n"
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("how", ["stream", "odd", "whole"])
@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
async def test_what_a_model_wrote_counts_by_its_length_where_nobody_tells(stage, how, kind):
    stage.limits = (LimitEntry(id="l", measure="tokens", window="day", amount=1500),)
    with Served(completions) as provider:
        stage.models = {"openai/instruct": (ProviderEntry(base_url=provider.url, credential="x"),)}
        stage.publish()
        body = json.dumps({"model": "instruct", "prompt": "word " * 400, "stream": how == "stream"}).encode()
        with serve_gateway(stage) as gateway:
            path = f"/v1/completions?{how}"
            got = [
                (await post(gateway.url, path=path, data=body, headers={"content-type": kind})).status for _ in range(4)
            ]
    assert got == [200, 200, 429, 429]
    record = stage.records(2)[0]
    assert record.usage_estimated and record.input_tokens >= 500 and 500 <= record.output_tokens < 520


async def test_an_upload_that_does_not_go_on_gives_its_place_free(stage, monkeypatch):
    monkeypatch.setattr("serving.gateway.pass_through.SILENT_SECONDS", 0.1)
    stage.publish()

    async def stuck():
        yield b"x"
        await asyncio.Event().wait()

    with serve_gateway(stage, tenant_in_flight=1) as gateway:
        assert (await post(gateway.url, path="/v1/files", data=stuck())).status == 408
        assert (await post(gateway.url, json=openai_ask())).status == 200


async def test_a_provider_that_takes_no_byte_is_a_504_and_gives_the_place_free(stage, monkeypatch):
    monkeypatch.setattr("serving.gateway.pass_through.SILENT_SECONDS", 0.2)

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def much():
        for _ in range(400):
            yield b"x" * 100_000

    async with await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1) as server:
        host, port = server.sockets[0].getsockname()
        stage.urls["teacher"] = f"http://{host}:{port}"
        stage.publish()
        with serve_gateway(stage, tenant_in_flight=1) as gateway:
            for _ in range(2):
                got = await post(gateway.url, path="/v1/files", data=much())
                assert (got.status, json.loads(got.body)["error"]["type"]) == (504, "api_error")
            assert [record.status for record in stage.records(2)] == [504, 504]


async def test_what_is_done_to_a_kept_answer_does_not_count_its_use_again(live):
    live.teacher.kept = b'{"object": "chat.completion", "model": "gpt-4o", "usage": {"prompt_tokens": 9}}'
    await post(live.url, path="/v1/chat/completions/chatcmpl-1", json={"metadata": {"a": "b"}})
    record = live.record()
    assert (record.reason, record.input_tokens, record.usage_estimated) == ("passed_through", 0, False)


async def test_a_caller_who_leaves_before_the_provider_answers_is_remembered(live):
    """The provider may have done what it was asked for."""
    async with aiohttp.ClientSession(headers=KEY) as http:
        with pytest.raises(TimeoutError):
            timeout = aiohttp.ClientTimeout(total=0.3)
            await http.post(f"{live.url}/v1/images/generations", json={"model": "gpt-image-1"}, timeout=timeout)
    record = live.record()
    assert (record.status, record.complete, record.asked_model) == (499, False, "gpt-image-1")
    wait_for(lambda: live.teacher.left == 1)


async def test_no_answer_is_kept_of_a_request_that_nobody_read(live):
    """Whose it was is not known then, so an erasure could not find it."""
    kinds = {"application/octet-stream": False, "application/vnd.x+json": True, "": True}
    for kind in kinds:
        headers = {"content-type": kind} if kind else {}
        body = b'{"model": "text-embedding-3-small", "user": "anna"}'
        await post(live.url, path="/v1/embeddings", data=body, headers=headers, skip_auto_headers=["content-type"])
    for record, is_read in zip(live.records(3), kinds.values(), strict=True):
        assert (record.response_sealed is not None) is is_read and record.input_tokens == 9


async def test_a_dot_or_an_encoded_slash_in_a_name_is_no_way_out(live):
    for path in ("/v1/files/a..b.json", "/v1/models/org%2Fmodel-1.5", "/v1/..."):
        async with (
            aiohttp.ClientSession() as http,
            http.post(URL(f"{live.url}{path}", encoded=True), headers=KEY) as got,
        ):
            assert got.status == 201
        assert live.teacher.seen[-1].path == path


def test_a_provider_that_is_down_is_a_502_and_is_remembered(stage):
    stage.urls["teacher"] = down()
    stage.publish()
    with serve_gateway(stage) as gateway, talk_to(gateway.url) as talk, pytest.raises(openai.InternalServerError):
        talk.embeddings.create(model="text-embedding-3-small", input="x")
    record = stage.record()
    assert (record.status, record.complete, record.asked_model) == (502, False, "text-embedding-3-small")


async def test_the_provider_is_let_go_when_the_caller_leaves(live):
    async with aiohttp.ClientSession() as http:
        with pytest.raises(TimeoutError):
            await http.get(f"{live.url}/v1/files/slow/content", headers=KEY, timeout=aiohttp.ClientTimeout(total=0.3))
    wait_for(lambda: live.teacher.left == 1)


async def test_a_conversation_that_is_made_shorter_is_written_by_a_model_and_counts(live):
    live.teacher.kept = b'{"object": "response.compaction", "model": "gpt-4o", "usage": {"input_tokens": 9}}'
    await post(live.url, path="/v1/responses/compact", json={"model": "gpt-4o", "input": "x"})
    assert live.record().input_tokens == 9
