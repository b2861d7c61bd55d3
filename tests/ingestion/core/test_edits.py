"""The two edits that a body may get: all else in it is what it was, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Dialect
from ingestion.core.dialects import parse_ask
from ingestion.core.edits import ask_usage, set_model
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
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"b"}'),
        (b'{"model":"a","model":"c"}', b'{"model":"b","model":"b"}'),
        (b'{"model":null}', b'{"model":"b"}'),
        (b'{"model":7}', b'{"model":"b"}'),
        (b'{"messages":[]}', b'{"model":"b","messages":[]}'),
        (b"{ }", b'{"model":"b" }'),
    ],
)
def test_only_the_models_name_is_another(raw, expected):
    assert set_model(raw, "b") == expected


def test_a_model_that_is_no_name_is_refused():
    with pytest.raises(UnableToParse):
        set_model(b'{"model":["a"]}', "b")


def test_a_name_may_hold_anything():
    assert json.loads(set_model(b'{"model":"a"}', 'q"\\\u2028é'))["model"] == 'q"\\\u2028é'


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.text(min_size=1), st.booleans())
def test_every_other_member_stays(body, model, spelt_out):
    body.pop("model", None)
    raw = json.dumps({**body, "model": "a"}, ensure_ascii=spelt_out, indent=len(body)).encode("utf-8", "surrogatepass")
    changed = set_model(raw, model)
    assert json.loads(changed) == {**body, "model": model}


def test_a_long_body_of_names_takes_no_longer_than_its_length():
    raw = b'{"a":["model"' + b',"model"' * 200_000 + b'],"model":"a"}'
    assert set_model(raw, "b").endswith(b'"model":"b"}')
    flat = b"{" + b",".join(b'"%d":"model"' % number for number in range(100_000)) + b',"model":"a"}'
    assert set_model(flat, "b").endswith(b'"model":"b"}')


def test_a_stream_is_asked_to_tell_its_usage_where_nothing_is_said_of_that():
    raw = b'{ "model":"m","stream":true,"messages":[{"role":"user","content":"{"}]}'
    changed = ask_usage(raw)
    assert changed == b'{"stream_options":{"include_usage":true}, ' + raw[2:]
    assert (parse_ask(Dialect.OPENAI, raw).include_usage, parse_ask(Dialect.OPENAI, changed).include_usage) == (
        None,
        True,
    )
