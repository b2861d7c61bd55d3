"""Holds what an API key is: long, random, recognised by its digest alone, and never shown by accident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.core.keys import ENTROPY_BYTES, UnableToMint, digest_key, mint_key

entropy = st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES)


@given(entropy)
def test_a_minted_key_is_recognised_by_its_digest(given_entropy):
    minted = mint_key(given_entropy)
    assert minted.plain.startswith("us_") and len(minted.plain) == 46
    assert digest_key(minted.plain) == minted.digest
    assert minted.plain.startswith(minted.prefix)


@given(entropy)
def test_the_key_itself_is_in_no_representation(given_entropy):
    minted = mint_key(given_entropy)
    assert minted.plain not in repr(minted)


@given(st.lists(entropy, min_size=2, max_size=2, unique=True))
def test_two_keys_never_share_a_digest(pair):
    assert mint_key(pair[0]).digest != mint_key(pair[1]).digest


@given(st.binary(max_size=64).filter(lambda found: len(found) != ENTROPY_BYTES))
def test_a_key_of_another_strength_is_never_minted(weak):
    with pytest.raises(UnableToMint):
        mint_key(weak)


@given(st.text())
def test_anything_a_stranger_sends_has_a_digest(text):
    assert len(digest_key(text)) == 64
