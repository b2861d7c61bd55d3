"""The two edits that a body may get: all else in it is what it was, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Dialect
from ingestion.core.dialects import parse_ask
from ingestion.core.edits import _Named, ask_usage, model_span, put_model, set_model
from ingestion.core.reading import UnableToParse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("model"), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"model":"a","n":1}', b'{"model":"b","n":1}'),
        (b' { "n" : 1.50 , "model"\n:\t"a" }\n', b' { "n" : 1.50 , "model"\n:\t"b" }\n'),
        (
            b'{"t":[{"model":"a"}],"x":{"model":"a"},"model":"a"}',
            b'{"t":[{"model":"a"}],"x":{"model":"a"},"model":"b"}',
        ),
        (
            b'{"x":"model","y":"\\"model\\":1","model":"a"}',
            b'{"x":"model","y":"\\"model\\":1","model":"b"}',
        ),
        (b'{"model":7}', b'{"model":"b"}'),
        (b'{"model":null,"n":1}', b'{"model":"b","n":1}'),
        (b'{"messages":[]}', b'{"model":"b","messages":[]}'),
        (b"{ }", b'{"model":"b" }'),
    ],
)
def test_only_the_models_name_is_another(raw, expected):
    assert set_model(raw, "b") == expected


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":["a"]}',
        b'{"model":{"model":"a"}}',
        b'{"mod\\u0065l":"a"}',
        b'{"model":true}',
        b'{"x":[' + b'{"model":"a"},' * 9 + b'{}],"model":"a"}',
        b'{"model":{"a":1},"model":"a","model":7.5}',
    ],
)
def test_a_model_that_is_no_name_or_cannot_be_told_apart_is_refused(raw):
    with pytest.raises(UnableToParse):
        set_model(raw, "b")


def test_the_place_of_the_name_is_found_once_for_several_names():
    raw = b'{"tools":[{"model":"understudy"}], "model": "understudy" }'
    span = model_span(raw)
    assert put_model(raw, span, "a") == b'{"tools":[{"model":"understudy"}], "model": "a" }'


def test_a_name_may_hold_anything():
    assert json.loads(set_model(b'{"model":"a"}', 'q"\\\u2028é'))["model"] == 'q"\\\u2028é'


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.text(min_size=1), st.booleans())
def test_every_other_member_stays(body, model, spelt_out):
    body.pop("model", None)
    raw = json.dumps({**body, "model": "a"}, ensure_ascii=spelt_out, indent=len(body)).encode("utf-8", "surrogatepass")
    changed = set_model(raw, model)
    assert json.loads(changed) == {**body, "model": model}


def test_a_hostile_body_is_looked_at_a_few_times_and_no_more(monkeypatch):
    looks = []
    monkeypatch.setattr("ingestion.core.edits._read", lambda raw: looks.append(raw) or _Named())
    with pytest.raises(UnableToParse):
        model_span(b'{"a":[' + b'{"model":"a"},' * 10_000 + b"{}]}")
    assert len(looks) < 12
    looks.clear()
    with pytest.raises(UnableToParse):
        model_span(b'{"a":[' + b'{"model":"a"},' * 100_000 + b"{}]}")
    assert len(looks) < 5


def test_a_stream_is_asked_to_tell_its_usage_where_nothing_is_said_of_that():
    raw = b'{ "model":"m","stream":true,"messages":[{"role":"user","content":"{"}]}'
    changed = ask_usage(raw)
    assert changed == b'{"stream_options":{"include_usage":true}, ' + raw[2:]
    assert (parse_ask(Dialect.OPENAI, raw).include_usage, parse_ask(Dialect.OPENAI, changed).include_usage) == (
        None,
        True,
    )
