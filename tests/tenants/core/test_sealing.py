"""Holds what sealing promises: a value opens for the one key, purpose and place it was sealed for, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.core.sealing import UnableToOpen, derive_key, open_sealed, seal

SECRET = b"one long master secret of this test, never another"
names = st.text(min_size=1, max_size=40)


@given(plain=st.binary(max_size=2000), context=names, purpose=names)
def test_a_sealed_value_opens_where_it_belongs(plain, context, purpose):
    key = derive_key(SECRET, purpose=purpose)
    assert open_sealed(key, seal(key, plain, context=context), context=context) == plain


@given(plain=st.binary(max_size=200), contexts=st.lists(names, min_size=2, max_size=2, unique=True))
def test_a_value_sealed_for_one_place_never_opens_for_another(plain, contexts):
    key = derive_key(SECRET, purpose="payloads")
    with pytest.raises(UnableToOpen):
        open_sealed(key, seal(key, plain, context=contexts[0]), context=contexts[1])


@given(plain=st.binary(max_size=200), purposes=st.lists(names, min_size=2, max_size=2, unique=True))
def test_a_value_sealed_for_one_purpose_never_opens_for_another(plain, purposes):
    first, second = (derive_key(SECRET, purpose=purpose) for purpose in purposes)
    with pytest.raises(UnableToOpen):
        open_sealed(second, seal(first, plain, context="here"), context="here")


@given(plain=st.binary(max_size=60), data=st.data())
def test_a_changed_byte_anywhere_is_noticed(plain, data):
    key = derive_key(SECRET, purpose="payloads")
    sealed = bytearray(seal(key, plain, context="here"))
    index = data.draw(st.integers(0, len(sealed) - 1))
    sealed[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UnableToOpen):
        open_sealed(key, bytes(sealed), context="here")


@given(st.binary(max_size=40))
def test_what_was_never_sealed_is_refused(noise):
    with pytest.raises(UnableToOpen):
        open_sealed(derive_key(SECRET, purpose="payloads"), noise, context="here")


def test_the_same_value_is_never_sealed_alike_twice():
    key = derive_key(SECRET, purpose="payloads")
    assert len({seal(key, b"again", context="here") for _ in range(100)}) == 100
