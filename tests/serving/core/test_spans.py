"""Where the values of a JSON text lie."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from serving.core.spans import leaf_spans

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def leaves(value) -> list:
    """The leaf values in the order in which they are written."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


@given(value=TREES, indent=st.booleans())
def test_each_leaf_has_one_span_that_reads_as_the_leaf(value, indent):
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    found = []
    for start, end in leaf_spans(text):
        quoted = text[start - 1 : start] == '"'
        empty = quoted and text[start:end] == '"'
        found.append(
            orjson.loads(f'"{text[start:end]}"')
            if quoted and not empty
            else ""
            if empty
            else orjson.loads(text[start:end])
        )
    assert found == leaves(value)


def test_keys_and_punctuation_are_no_leaves_and_no_span_is_empty():
    text = '{"a": "x", "b": {"c": [1, "", null]}, "d": {}}'
    assert [text[start:end] for start, end in leaf_spans(text)] == ["x", "1", '"', "null"]
