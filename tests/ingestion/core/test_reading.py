"""A body that would hold every other call up while it is read is not read."""

import json

import pytest

from ingestion.core import reading
from ingestion.core.calls import Dialect
from ingestion.core.dialects import parse_answer, parse_ask, parse_passing_answer
from ingestion.core.reading import UnableToParse, load_object

DUST = b"[]," * 300_000 + b"1"


@pytest.mark.parametrize("body", [b'{"x":[' + DUST + b"]}", b'{"x":{' + b'"a":{},' * 250_000 + b'"b":1}}'])
def test_a_body_of_nothing_but_small_values_is_refused(body):
    with pytest.raises(UnableToParse, match="commas and brackets"):
        load_object(body)
    with pytest.raises(UnableToParse):
        parse_answer(Dialect.OPENAI, body)


def test_one_that_has_a_watched_key_twice_is_not_read_again_where_that_would_take_long(monkeypatch):
    read = []
    monkeypatch.setattr(reading.json, "loads", read.append)
    body = b'{"model":"m","messages":[],"x":{"model":1},"y":[' + b"1," * 120_000 + b"1]}"
    with pytest.raises(UnableToParse, match="given twice"):
        parse_ask(Dialect.OPENAI, body)
    assert read == []


def test_a_long_text_is_read_and_so_is_much_for_an_embedding():
    text = "Oslo, 12, [a], {b}; " * 20_000
    ask = {"model": "m", "messages": [{"role": "user", "content": text}]}
    assert parse_ask(Dialect.OPENAI, json.dumps(ask).encode()).messages[0].text == text
    assert len(load_object(json.dumps({"input": [1] * 300_000}).encode())["input"]) == 300_000


def test_what_was_used_is_read_beside_numbers_by_the_million_and_is_no_long_thing_itself():
    numbers = b"0.125," * 1_000_000 + b"1"
    body = b'{"data":[' + numbers + b'],"model":"e","usage":{"prompt_tokens":9,"total_tokens":9}}'
    assert parse_passing_answer(Dialect.OPENAI, body).usage.input_tokens == 9
    assert parse_passing_answer(Dialect.OPENAI, b'{"usage":{"x":[' + DUST + b"]}}").usage is None
