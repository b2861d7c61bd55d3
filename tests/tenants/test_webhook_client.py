"""Holds that a webhook reaches no address that is ours alone, however it is spelt, and trusts no receiver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants import webhook_client
from tenants.addresses import is_blocked
from tenants.webhook_client import MOST_READ, UnableToUseUrl, check_url, post
from tests.fakes.receiver import Receiver, listening_at
from tests.fakes.serve import free_port

OURS_ALONE = [
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
ANYBODYS = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "2400:cb00::1",
]
# Every one of these means loopback or this machine to a resolver, whatever a parser of addresses makes of it.
SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0",
    "localhost",
    "LOCALHOST",
    "127.0.0.1.",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127\u30020\u30020\u30021",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "169.254.169.254",
    "10.0.0.1",
]


@pytest.fixture(scope="module")
def listening():
    receiver = Receiver()
    with listening_at(receiver) as url:
        yield receiver, url


@pytest.mark.parametrize("address", OURS_ALONE)
def test_an_address_that_is_ours_alone_is_blocked(address):
    assert is_blocked(address)


@pytest.mark.parametrize("address", ANYBODYS)
def test_an_address_of_the_public_internet_is_not_blocked(address):
    assert not is_blocked(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_ipv4_address_in_ipv6_never_gets_it_past_the_list(address):
    packed = int(address)
    six_to_four = f"2002:{packed >> 16:x}:{packed & 0xFFFF:x}::"
    for wrapped in (f"::{address}", f"::ffff:{address}", f"64:ff9b::{address}", six_to_four):
        assert is_blocked(wrapped)


@given(st.text(max_size=30))
def test_what_is_no_address_is_blocked(text):
    assert is_blocked(f"{text}!")


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_this_machine_is_connected_to(listening, host):
    receiver, url = listening
    port = url.rpartition(":")[2]
    receipt = post(f"http://{host}:{port}/", body=b"{}", headers={}, allow_private=False)
    assert receipt.status is None
    assert receipt.fault in {"blocked", "bad_url", "unreachable"}
    assert receiver.messages == []


def test_the_list_and_nothing_else_is_why_loopback_is_refused(listening):
    _, url = listening
    assert post(url, body=b"{}", headers={}, allow_private=False).fault == "blocked"
    assert post(url, body=b"{}", headers={}, allow_private=True).accepted


def test_a_redirect_is_never_followed():
    inner = Receiver()
    with listening_at(inner) as aim:
        outer = Receiver(statuses=[307], extra_headers=[(b"location", aim.encode())])
        with listening_at(outer) as url:
            receipt = post(url, body=b"{}", headers={}, allow_private=True)
    assert (receipt.status, receipt.accepted, inner.messages) == (307, False, [])


def test_an_endless_answer_is_cut_off():
    receiver = Receiver(statuses=[200], body=b"x" * MOST_READ, chunks=100_000)
    with listening_at(receiver) as url:
        assert post(url, body=b"{}", headers={}, allow_private=True).accepted


def test_a_compressed_answer_is_not_unpacked():
    receiver = Receiver(statuses=[200], extra_headers=[(b"content-encoding", b"gzip")], body=b"not gzip")
    with listening_at(receiver) as url:
        assert post(url, body=b"{}", headers={}, allow_private=True).accepted


def test_nobody_listening_is_told_apart_from_blocked():
    assert post(f"http://127.0.0.1:{free_port()}", body=b"{}", headers={}, allow_private=True).fault == "unreachable"


def test_a_receiver_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(webhook_client, "LIMIT_SECONDS", 0.2)

    async def silent(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    with listening_at(silent) as url:
        assert post(url, body=b"{}", headers={}, allow_private=True).fault == "timeout"


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/x",
        "ftp://hooks.example",
        "file:///etc/passwd",
        "gopher://hooks.example",
        "hooks.example",
        "https://",
        "https:///path",
        "https://user:secret@hooks.example",
        "https://user@hooks.example",
        "https://hooks.example:99999",
        "https://hooks.example:0",
        "https://hooks.example/a b",
        "https://hooks.example/\n",
        "https://[::1",
        "https://hooks.example/" + "x" * 500,
        "",
    ],
)
def test_a_url_that_is_no_endpoint_is_refused(url):
    with pytest.raises(UnableToUseUrl):
        check_url(url, allow_private=False)


def test_a_plain_url_is_taken_only_where_private_ones_are():
    assert check_url("https://hooks.example:8443/x?y=1", allow_private=False)
    assert check_url("http://127.0.0.1:9/x", allow_private=True)
