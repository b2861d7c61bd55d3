"""Asks the stand-in teacher through the official SDKs, because that is whom it must convince."""

import json
from itertools import islice

import anthropic
import httpx
import openai
import pytest
from genai_prices import Usage, calc_price

from demo.expert import MODELS, NO_ANSWER
from demo.grammar.sampling import draw_samples
from demo.workloads import WORKLOADS, build_body
from tests.demo.servers import CREDENTIAL, run_teacher


@pytest.fixture(scope="module")
def base_url():
    with run_teacher() as url:
        yield url


@pytest.fixture
def openai_client(base_url):
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key=CREDENTIAL, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(base_url):
    with anthropic.Anthropic(base_url=base_url, api_key=CREDENTIAL, max_retries=0) as client:
        yield client


def draw(name):
    workload = WORKLOADS[name]
    return workload, next(sample for sample in islice(draw_samples(workload, seed=9), 50) if not sample.ambiguous)


@pytest.mark.parametrize("name", ["routing", "exceptions"])
def test_an_openai_call_is_answered_with_the_label_and_its_tokens(openai_client, name):
    workload, sample = draw(name)
    completion = openai_client.chat.completions.create(**build_body(workload, query=sample.query))
    assert completion.choices[0].message.content == sample.answer
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens > 100
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


def test_an_openai_stream_ends_with_its_usage(openai_client):
    workload, sample = draw("routing")
    chunks = list(openai_client.chat.completions.create(**build_body(workload, query=sample.query, stream=True)))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == sample.answer
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[0].usage is None


def test_an_anthropic_call_is_answered_with_json(anthropic_client):
    workload, sample = draw("clauses")
    message = anthropic_client.messages.create(**build_body(workload, query=sample.query))
    assert json.loads(message.content[0].text) == json.loads(sample.answer)
    assert message.stop_reason == "end_turn"


def test_an_anthropic_tool_call_arrives_whole_and_in_pieces(anthropic_client):
    workload, sample = draw("invoices")
    body = build_body(workload, query=sample.query)
    whole = anthropic_client.messages.create(**body)
    with anthropic_client.messages.stream(**body) as stream:
        pieced = stream.get_final_message()
    for message in (whole, pieced):
        assert message.stop_reason == "tool_use"
        assert message.content[0].name == "report_anomaly"
        assert message.content[0].input == json.loads(sample.answer)
        assert message.usage.output_tokens > 0


def test_the_token_limit_cuts_the_answer_short(openai_client):
    workload, sample = draw("routing")
    body = {**build_body(workload, query=sample.query), "max_tokens": 1}
    choice = openai_client.chat.completions.create(**body).choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.content == sample.answer[:4]


def test_a_stranger_to_the_prompts_gets_no_label(openai_client):
    messages = [{"role": "system", "content": "You are a poet."}, {"role": "user", "content": "Hello"}]
    completion = openai_client.chat.completions.create(model="gpt-4o", messages=messages)
    assert completion.choices[0].message.content == NO_ANSWER


def test_a_wrong_credential_is_refused_in_both_dialects(base_url):
    workload, sample = draw("routing")
    with (
        openai.OpenAI(base_url=f"{base_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(**build_body(workload, query=sample.query))
    workload, sample = draw("clauses")
    with (
        anthropic.Anthropic(base_url=base_url, api_key="wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(**build_body(workload, query=sample.query))


def test_an_unknown_model_is_not_found(openai_client):
    with pytest.raises(openai.NotFoundError):
        openai_client.chat.completions.create(model="gpt-0", messages=[{"role": "user", "content": "Hello"}])


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"model": "gpt-4o"}', b"[" * 200_000, b"\xff"])
def test_a_body_it_cannot_read_is_a_bad_request(base_url, raw):
    headers = {"authorization": f"Bearer {CREDENTIAL}"}
    response = httpx.post(f"{base_url}/v1/chat/completions", content=raw, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_anthropic_calls_must_name_their_version(base_url):
    workload, sample = draw("clauses")
    response = httpx.post(
        f"{base_url}/v1/messages", json=build_body(workload, query=sample.query), headers={"x-api-key": CREDENTIAL}
    )
    assert response.status_code == 400
    assert response.json()["type"] == "error"


def test_the_models_are_listed_in_both_dialects(openai_client, anthropic_client):
    assert {model.id for model in openai_client.models.list()} == set(MODELS)
    assert [model.id for model in anthropic_client.models.list()] == ["claude-sonnet-4-6"]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_public_price(model):
    assert calc_price(Usage(input_tokens=1000, output_tokens=10), model_ref=model).total_price > 0
