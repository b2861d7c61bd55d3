"""Small parts of the wire that whole calls do not show."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.calls import Provider
from serving.gateway.messages import make_call_id
from serving.gateway.metrics import MOST_REASONS, Metrics
from serving.gateway.upstream import returned_headers, sent_headers


@given(at=st.floats(min_value=0, max_value=4e9), entropy=st.binary(min_size=10, max_size=10))
def test_a_call_id_is_a_uuid_of_version_7_that_tells_its_time(at, entropy):
    made = uuid.UUID(make_call_id(at=at, entropy=entropy))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(at * 1000)


@given(entropies=st.lists(st.binary(min_size=10, max_size=10), min_size=2, max_size=2))
def test_call_ids_sort_by_time(entropies):
    early, late = entropies
    assert make_call_id(at=1000.0, entropy=early) < make_call_id(at=1000.001, entropy=late)


def test_hop_by_hop_headers_stop_here_also_those_that_connection_names():
    given_headers = [
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"1"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"x-understudy-arm", b"teacher"),
        (b"anthropic-beta", b"tools"),
    ]
    sent = dict(sent_headers(given_headers, provider=Provider.ANTHROPIC, credential="secret"))
    ours = {b"accept-encoding": b"identity", b"via": b"1.1 understudy", b"x-api-key": b"secret"}
    assert sent == {b"anthropic-beta": b"tools", **ours}


def test_a_provider_cannot_speak_in_our_name_or_set_cookies():
    given_headers = [(b"x-understudy-arm", b"student"), (b"set-cookie", b"a"), (b"retry-after", b"3")]
    assert returned_headers(given_headers) == [(b"retry-after", b"3")]


def test_reasons_without_end_do_not_become_labels_without_end():
    metrics = Metrics(snapshot=lambda: (0, 0))
    for number in range(MOST_REASONS * 3):
        metrics.count_call(dialect="openai", arm="fallback", status=200, reason=f"reason-{number}", seconds=0.1)
    assert metrics.render().count(b"understudy_fallbacks_total{") == MOST_REASONS + 1
