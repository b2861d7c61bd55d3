"""Personal numbers and addresses do not get into a dataset, and other numbers stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.core.redact import redact


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to bob.b+x@mail.acme.test, please", "write to [email], please"),
        ("card 4111 1111 1111 1111 expired", "card [card] expired"),
        ("card 4111111111111111.", "card [card]."),
        ("card 3782-822463-10005", "card [card]"),
        ("to DE89 3704 0044 0532 0130 00 THANKS", "to [iban] THANKS"),
        ("to NL91ABNA0417164300.", "to [iban]."),
        ("call +49 170 1234567 now", "call [phone] now"),
        ("call (415) 555-2671", "call [phone]"),
        ("call 415-555-2671", "call [phone]"),
        ("call 030/1234567", "call [phone]"),
        ("call 00491701234567", "call [phone]"),
    ],
)
def test_personal_numbers_are_masked(text, masked):
    assert redact(text) == (masked, 1)


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-01-05 12:30 or 05.01.2024 at 10",
        "card 4111 1111 1111 1112 fails its checksum",
        "order 1234567890 of 1,234,567.89 EUR",
        "host 192.168.100.100 port 8080",
        "DE00 3704 0044 0532 0130 00",
        "a@b and 0000000000000000",
        "",
    ],
)
def test_other_numbers_stay(text):
    assert redact(text) == (text, 0)


def test_finds_are_counted():
    assert redact("a@b.test and c@d.test, +49 170 1234567")[1] == 3


@given(st.text(alphabet="a1 0+@.-/()DE", max_size=60) | st.text(max_size=60))
def test_masking_again_finds_nothing(text):
    masked, found = redact(text)
    assert redact(masked) == (masked, 0)
    assert (found == 0) == (masked == text)
