"""Where a tenant's calls go: Azure's paths, models under names of their own, and the next destination in need."""

import asyncio
import json
from contextlib import contextmanager
from decimal import Decimal

import msgspec
import openai
import pytest

from ingestion.core.calls import Dialect
from ingestion.core.rating import Rates
from serving.core.breaker import FAILURES
from serving.core.limits import LimitEntry
from serving.core.snapshot import ProviderEntry
from tests.fakes.encoder import decision
from tests.fakes.serve import Served, free_port
from tests.fakes.teacher import EMBEDDED, ERROR_BODY, Teacher
from tests.serving.gateway.cast import PLAIN, RATES, get, mark, openai_ask, opened, post, serve_gateway, student

AZURE_PATH = "/openai/deployments/gpt-4o/chat/completions"
VERSION = "api-version=2024-10-21"


def there(url: str, *, provider: str = "openai", model: str = "", name: str = "") -> ProviderEntry:
    return ProviderEntry(base_url=url, credential=f"key-{name or provider}", provider=provider, id=name, model=model)


@contextmanager
def gateway_for(stage, models=None, *asks, rates=None, settings=None, **route):
    """The stage with a gateway that knows these models, and a student for these asks."""
    stage.models, stage.rates = models or {}, {**RATES, **(rates or {})}
    if asks:
        stage.encoder.decisions["routing-head-7"] = decision("track_shipment")
        stage.cast_student(student(), *((ask, Dialect.OPENAI) for ask in asks), **route)
    else:
        stage.publish()
    with serve_gateway(stage, **(settings or {})) as gateway:
        stage.url = gateway.url
        yield stage


@contextmanager
def another_teacher():
    second = Teacher()
    with Served(second) as served:
        yield second, served.url


async def test_azures_own_client_is_answered_by_azure_and_logged_as_it_was_sent(live):
    client = openai.AsyncAzureOpenAI(
        azure_endpoint=live.url, api_key=PLAIN.plain, api_version="2024-10-21", azure_deployment="gpt-4o"
    )
    async with client:
        answer = await client.chat.completions.create(**openai_ask())
    assert answer.choices[0].message.content == "track_shipment"
    seen, record = live.teacher.seen[0], live.record()
    assert seen.path == f"{AZURE_PATH}?{VERSION}" and seen.headers["api-key"] == "teacher-azure"
    assert "authorization" not in seen.headers and PLAIN.plain not in str(seen.headers)
    assert (record.provider, record.asked_model, record.dialect) == ("azure", "gpt-4o", "openai")
    assert opened(record, "request") == seen.body


async def test_azures_client_streams_embeds_and_responds(live):
    client = openai.AsyncAzureOpenAI(azure_endpoint=live.url, api_key=PLAIN.plain, api_version="2025-03-01-preview")
    async with client:
        stream = await client.chat.completions.create(**openai_ask(stream=True))
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        embedded = await client.embeddings.create(model="small", input="x", encoding_format="float")
        response = await client.responses.create(model="gpt-4o", input="Where is it?")
    assert (text, embedded.data[0].embedding, response.output_text) == ("track_shipment", [0.5, -0.5], "track_shipment")
    paths = [seen.path.partition("?")[0] for seen in live.teacher.seen]
    assert paths == [AZURE_PATH, "/openai/deployments/small/embeddings", "/openai/responses"]
    chat, embedding, answer = live.records(3)
    assert [record.asked_model for record in (chat, embedding, answer)] == ["gpt-4o", "small", "gpt-4o"]
    assert (embedding.input_tokens, embedding.provider) == (9, "azure")


async def test_a_student_answers_what_comes_by_azures_path(stage):
    body = {name: value for name, value in openai_ask().items() if name != "model"}
    with gateway_for(stage, None, openai_ask()):
        got = await post(stage.url, path=f"{AZURE_PATH}?{VERSION}", key="", headers={"api-key": PLAIN.plain}, json=body)
    assert got.headers["x-understudy-arm"] == "student" and stage.teacher.seen == []
    assert stage.record().provider == "azure"


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/a/chat%2fcompletions",
        "/openai/Deployments/a/chat/completions",
        "/openai/deployments/a/../b/chat/completions",
        "/openai//v1/chat/completions",
        "/openai/realtime",
        "/openai/v1/realtime/sessions",
        "/openai/deployments",
        "/openai/deployments/../chat/completions",
        "/openai/deployments/..%2f..%2fanthropic%2fv1/messages",
        "/openai/deployments/a;b/chat/completions",
        "/openai/deployments/a%252fb/chat/completions",
        "/openai/%2fdeployments/x",
        "/v1/%2forganization/admin_api_keys",
    ],
)
async def test_no_odd_spelling_of_azures_paths_passes(live, path):
    assert (await post(live.url, path=path, key="", headers={"api-key": PLAIN.plain}, json={})).status == 404
    assert live.teacher.seen == []


async def test_azures_paths_take_no_strangers_key_and_ask_for_a_body_that_is_right(live):
    for headers in ({"api-key": "us_wrong"}, {}, {"x-api-key": PLAIN.plain}):
        assert (await post(live.url, path=AZURE_PATH, key="", headers=headers, json=openai_ask())).status == 401
    got = await post(live.url, path=AZURE_PATH, headers={}, json={"messages": []})
    assert (got.status, json.loads(got.body)["error"]["param"]) == (400, "messages")


async def test_a_model_goes_under_the_name_it_has_there_and_nothing_else_changes(stage):
    raw = b'{ "stream" : false, "model":"smart" ,"messages":[{"role":"user","content":"\\u00e9 1.0e1"}], "odd":1.50 }'
    models = {"openai/smart": (there(stage.urls["teacher"], model="gpt-4o-2024-08-06", name="eu"),)}
    with gateway_for(stage, models):
        got = await post(stage.url, data=raw, headers={"content-type": "application/json"})
    seen, record = stage.teacher.seen[0], stage.record()
    assert seen.body == raw.replace(b'"smart"', b'"gpt-4o-2024-08-06"') == opened(record, "request")
    assert seen.headers["authorization"] == "Bearer key-eu" and json.loads(got.body)["model"] == "gpt-4o-2024-08-06"
    assert (record.asked_model, record.credential_id, record.failovers) == ("gpt-4o-2024-08-06", "eu", 0)


async def test_the_workload_is_that_of_the_model_that_answers(stage):
    with gateway_for(stage, {"openai/smart": (there(stage.urls["teacher"], model="gpt-4o"),)}, openai_ask()):
        got = await post(stage.url, json=openai_ask("smart"))
    assert got.headers["x-understudy-arm"] == "student"
    assert stage.record().fingerprint == mark(openai_ask("gpt-4o"))


@pytest.mark.parametrize("failing", ["rate-limited", "overloaded", "failing"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_destination_is_asked_where_one_is_busy_or_broken(stage, failing, stream):
    first = there(stage.urls["teacher"], model=failing, name="first")
    with another_teacher() as (second, url), gateway_for(stage, {"openai/gpt-4o": (first, there(url, name="second"))}):
        got = await post(stage.url, json=openai_ask(stream=stream))
        numbers = (await get(f"{stage.url}/metrics")).body
    record = stage.record()
    assert got.status == 200 and b"ship" in got.body and b"understudy_failovers_total 1.0" in numbers
    assert (len(stage.teacher.seen), len(second.seen)) == (1, 1)
    assert json.loads(second.seen[0].body)["model"] == "gpt-4o"
    assert (record.status, record.credential_id, record.failovers, record.asked_model) == (200, "second", 1, "gpt-4o")


async def test_the_next_is_asked_where_one_cannot_be_reached_and_another_provider_in_its_own_way(stage):
    gone = there(f"http://127.0.0.1:{free_port()}", name="gone")
    azure = there(stage.urls["teacher"], provider="azure", model="prod", name="azure")
    with gateway_for(stage, {"openai/gpt-4o": (gone, azure)}):
        for _ in range(3):
            assert (await post(stage.url, json=openai_ask())).status == 200
    assert [seen.path for seen in stage.teacher.seen] == ["/openai/v1/chat/completions"] * 3
    assert stage.teacher.seen[0].headers["api-key"] == "key-azure"
    assert json.loads(stage.teacher.seen[0].body)["model"] == "prod"
    assert {record.provider for record in stage.records(3)} == {"azure"}


async def test_the_last_ones_refusal_is_the_callers_and_a_refusal_of_the_call_is_the_first_ones(stage):
    with another_teacher() as (second, url):
        models = {
            "openai/gpt-4o": (there(stage.urls["teacher"], model="rate-limited"), there(url, model="failing")),
            "openai/unknown": (there(stage.urls["teacher"], model="unknown-model"), there(url)),
        }
        with gateway_for(stage, models):
            got = await post(stage.url, json=openai_ask())
            assert (got.status, got.body) == (500, ERROR_BODY)
            assert (await post(stage.url, json=openai_ask("unknown"))).status == 404
    assert len(second.seen) == 1 and [record.failovers for record in stage.records(2)] == [1, 0]


async def test_what_the_provider_keeps_is_asked_of_one_alone(stage):
    kept = {"model": "gpt-4o", "input": "Where is it?", "store": True}
    first = there(stage.urls["teacher"], model="failing")
    with another_teacher() as (second, url), gateway_for(stage, {"openai/gpt-4o": (first, there(url))}):
        assert (await post(stage.url, path="/v1/responses", json=kept)).status == 500
        assert second.seen == []
        assert (await post(stage.url, path="/v1/responses", json={**kept, "store": False})).status == 200


async def test_embeddings_go_where_their_model_does(stage):
    gone = there(f"http://127.0.0.1:{free_port()}", name="gone")
    raw = b'{"input":"x" , "model":"small"}'
    with another_teacher() as (second, url):
        models = {"openai/small": (gone, there(url, model="text-embedding-3-small", name="second"))}
        with gateway_for(stage, models):
            kind = {"content-type": "application/json"}
            got = await post(stage.url, path="/v1/embeddings", data=raw, headers=kind)
    assert (got.status, got.body) == (200, EMBEDDED) and stage.teacher.seen == []
    assert second.seen[0].body == raw.replace(b"small", b"text-embedding-3-small")
    record = stage.record()
    assert (record.credential_id, record.failovers, record.input_tokens) == ("second", 1, 9)


@pytest.mark.parametrize("path", ["deployments/x/responses", "deployments/x/messages", "v1/messages"])
async def test_what_azure_answers_as_something_else_is_no_call_of_ours(live, path):
    body = {**openai_ask(), "input": "x", "max_tokens": 5}
    await post(live.url, path=f"/openai/{path}", key="", headers={"api-key": PLAIN.plain}, json=body)
    assert live.record().reason == "passed_through" and len(live.teacher.seen) == 1


async def test_a_header_of_another_dialect_changes_nothing_on_azures_paths(stage):
    stage.limits = (LimitEntry(id="l", measure="tokens", window="day", amount=30),)
    headers = {"api-key": PLAIN.plain, "anthropic-version": "2023-06-01"}
    with gateway_for(stage):
        body = {"model": "small", "input": "x", "user": "alice"}
        seen = [
            await post(stage.url, path="/openai/v1/embeddings", key="", headers=headers, json=body) for _ in range(6)
        ]
    assert [got.status for got in seen] == [200, 200, 200, 200, 429, 429]
    assert all(record.subject_hmac and record.input_tokens == 9 for record in stage.records(4))


@pytest.mark.parametrize(
    "path",
    [
        *("/openai/v1/batches", "/openai/V1/batches", "/openai/%76%31/batches", "/openai/Deployments/x/audio/speech"),
        *("/openai/deployments%2fx/audio/speech", "/openai/deployments/a%2faudio/speech"),
        *(
            "/openai/v1/video/generations/jobs",
            "/v1/Batches",
            "/v1/images/generations",
            "/openai/deployments/x/images/generations",
        ),
    ],
)
async def test_what_nobody_could_measure_is_refused_however_it_is_spelt(stage, path):
    stage.limits = (LimitEntry(id="l", measure="spend", window="day", amount=10**9),)
    with gateway_for(stage):
        assert (await post(stage.url, path=path, data=b"{}")).status == 403
    assert stage.teacher.seen == []


async def test_what_is_set_aside_is_what_the_dearest_destination_may_take(stage):
    stage.limits = (LimitEntry(id="l", measure="spend", window="day", amount=10**7),)  # one cent
    first = there(stage.urls["teacher"], model="gpt-4o-mini", name="cheap")
    rates = {"openai/gpt-4o-mini": Rates(*map(Decimal, ("0.1", "0.1", "0.1", "0.1")), currency="USD")}
    ask = openai_ask("smart", max_tokens=1000)
    with another_teacher() as (_, url):
        for models, expected in (
            ({"openai/smart": (first,)}, 200),
            ({"openai/smart": (first, there(url, model="gpt-4o"))}, 429),
        ):
            with gateway_for(stage, models, rates=rates):
                assert (await post(stage.url, json=ask)).status == expected


async def test_the_dearest_is_the_dearest_for_this_call(stage):
    """Ten to read and one to write is dearer than one and nine only for who reads much."""
    stage.limits = (LimitEntry(id="l", measure="spend", window="day", amount=5 * 10**8),)  # half a dollar
    rates = {
        f"openai/{name}": Rates(*map(Decimal, (*price, "0", "0")), currency="USD")
        for name, price in {"reads": ("10", "1"), "writes": ("1", "9")}.items()
    }
    models = {
        "openai/smart": (there(stage.urls["teacher"], model="reads"), there(stage.urls["teacher"], model="writes"))
    }
    with gateway_for(stage, models, rates=rates):
        assert (await post(stage.url, json=openai_ask("smart", max_tokens=100_000))).status == 429
        assert (await post(stage.url, json=openai_ask("smart", max_tokens=10_000))).status == 200


async def test_the_price_is_that_of_the_deployment_whatever_the_body_says(stage):
    """In the log by its name, and for the limit: nine tokens of the dear one take all that there is."""
    stage.limits = (LimitEntry(id="l", measure="spend", window="day", amount=10**9),)
    rates = {"azure/dear": Rates(*map(Decimal, ("200000", "0", "0", "0")), currency="USD")}
    body = {"model": "cheap", "input": "x"}
    headers = {"api-key": PLAIN.plain}
    with gateway_for(stage, rates=rates):
        got = [
            (
                await post(stage.url, path=f"/openai/deployments/{name}/embeddings", key="", headers=headers, json=body)
            ).status
            for name in ("other", "other", "dear", "other")
        ]
    assert got == [200, 200, 200, 429]
    assert [record.asked_model for record in stage.records(3)] == ["other", "other", "dear"]


async def test_a_name_that_cannot_be_told_apart_is_the_callers_to_mend(stage):
    models = {"openai/smart": (there(stage.urls["teacher"], model="gpt-4o"),)}
    raw = b'{"mod\\u0065l":"smart","messages":[{"role":"user","content":"x"}]}'
    with gateway_for(stage, models):
        got = await post(stage.url, data=raw, headers={"content-type": "application/json"})
        odd = b'{"input":"x","model":{"a":1},"model":"smart"}'
        other = await post(stage.url, path="/v1/embeddings", data=odd, headers={"content-type": "application/json"})
    assert (got.status, json.loads(got.body)["error"]["param"]) == (400, "model")
    assert other.status == 400 and stage.record().status == 400


async def test_a_model_of_the_same_name_elsewhere_is_another_teacher(stage):
    asked = openai_ask()
    usual = there(stage.urls["teacher"])
    with gateway_for(stage, {"openai/gpt-4o": (usual,)}, asked):
        assert (await post(stage.url, json=asked)).headers["x-understudy-arm"] == "student"
    elsewhere = msgspec.structs.replace(usual, teacher=f"openai {usual.base_url}")
    with gateway_for(stage, {"openai/gpt-4o": (elsewhere,)}, asked):
        assert (await post(stage.url, json=asked)).headers["x-understudy-arm"] == "teacher"


async def test_a_name_that_a_later_destination_needs_is_looked_for_before_the_first_is_asked(stage):
    gone = there(f"http://127.0.0.1:{free_port()}", name="gone")
    models = {"openai/gpt-4o": (gone, there(stage.urls["teacher"], model="gpt-4o-mini"))}
    raw = b'{"mod\\u0065l":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    with gateway_for(stage, models):
        got = await post(stage.url, data=raw, headers={"content-type": "application/json"})
        other = await post(stage.url, path="/v1/embeddings", data=raw, headers={"content-type": "application/json"})
    assert (got.status, other.status) == (400, 400) and "x-understudy-failovers" not in got.headers


async def test_money_for_what_a_provider_keeps_is_set_aside_at_the_price_of_the_one_that_may_be_asked(stage):
    stage.limits = (LimitEntry(id="l", measure="spend", window="day", amount=10**7),)  # one cent
    rates = {"openai/gpt-4o-mini": Rates(*map(Decimal, ("0.1", "0.1", "0.1", "0.1")), currency="USD")}
    cheap = there(stage.urls["teacher"], model="gpt-4o-mini", name="cheap")
    with gateway_for(stage, {"openai/smart": (cheap, there(stage.urls["teacher"], model="gpt-4o"))}, rates=rates):
        got = await post(stage.url, json=openai_ask("smart", max_tokens=1000, store=True))
    assert got.status == 200


async def test_a_long_body_is_known_by_its_model_and_subject_though_it_is_not_kept(stage):
    body = {"model": "smart", "input": "x" * 1_200_000, "user": "anna"}
    with gateway_for(stage, {"openai/smart": (there(stage.urls["teacher"], model="text-embedding-3-small"),)}):
        await post(stage.url, path="/v1/embeddings", json=body)
    record = stage.record()
    assert record.asked_model == "text-embedding-3-small" and record.subject_hmac
    assert opened(record, "request") == b""


async def test_silence_counts_against_a_destination_so_that_the_next_calls_do_not_wait_for_it(stage):
    first = there(stage.urls["teacher"], model="silent", name="first")
    with another_teacher() as (second, url):
        models = {"openai/gpt-4o": (first, there(url, name="second"))}
        with gateway_for(stage, models, settings={"failover_timeout": 0.2}):
            for _ in range(FAILURES + 3):
                assert (await post(stage.url, json=openai_ask())).status == 200
    assert len(stage.teacher.seen) == FAILURES and len(second.seen) == FAILURES + 3


async def test_silence_until_the_time_out_fails_over_too(stage):
    first = there(stage.urls["teacher"], model="silent", name="first")
    with another_teacher() as (second, url):
        models = {"openai/gpt-4o": (first, there(url, name="second"))}
        with gateway_for(stage, models, settings={"failover_timeout": 60, "teacher_timeout": 0.3}):
            assert (await post(stage.url, json=openai_ask())).status == 200
    assert len(second.seen) == 1


async def test_what_stood_in_is_not_compared(stage):
    gone = there(f"http://127.0.0.1:{free_port()}", name="gone")
    models = {"openai/gpt-4o": (gone, there(stage.urls["teacher"]))}
    with gateway_for(stage, models, openai_ask(), student_share=0.0, control_share=1.0):
        assert (await post(stage.url, json=openai_ask())).headers["x-understudy-arm"] == "control"
    assert stage.record().failovers == 1 and not stage.record().wants_shadow


async def test_a_silent_destination_is_not_waited_for_and_nor_is_one_without_a_place(stage):
    first = there(stage.urls["teacher"], model="silent", name="first")
    with another_teacher() as (second, url):
        models = {"openai/gpt-4o": (first, there(url, name="second"))}
        with gateway_for(stage, models, settings={"failover_timeout": 0.3, "tenant_in_flight": 1}):
            got = await asyncio.gather(*(post(stage.url, json=openai_ask()) for _ in range(2)))
    assert [one.status for one in got] == [200, 200] and len(second.seen) == 2
    assert [one.headers["x-understudy-failovers"] for one in got] == ["1", "1"]
    assert len(stage.teacher.seen) == 1 and {record.failovers for record in stage.records(2)} == {1}


async def test_the_callers_account_is_told_to_its_usual_destination_alone(stage):
    other = msgspec.structs.replace(there(stage.urls["teacher"], name="other"), usual=False)
    account = {"openai-organization": "org-1", "openai-project": "proj-1"}
    with gateway_for(stage, {"openai/smart": (other,)}):
        for model in ("gpt-4o", "smart"):
            await post(stage.url, json=openai_ask(model), headers=account)
    usual, elsewhere = stage.teacher.seen
    assert account.items() <= usual.headers.items() and not account.keys() & elsewhere.headers.keys()
