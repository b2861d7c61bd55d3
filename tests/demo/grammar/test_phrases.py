"""Holds the two readings of a phrase together: whatever one writes, the other finds."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.grammar.phrases import (
    UnableToReadPhrase,
    compile_finder,
    compile_reader,
    find_slots,
    literal_words,
    parse_phrase,
    squash,
    write,
)
from demo.grammar.spelling import Speller

PHRASE = "[where is|where's] [my|our [big|]] parcel {shipment}[ now|]"
FILLERS = {"shipment": lambda rng: f"SH-{rng.randrange(1000)}"}


@given(seed=st.integers(0, 10_000))
def test_what_is_written_is_found_in_any_case_and_punctuation(seed):
    wording = write(PHRASE, Random(seed), fillers=FILLERS)
    assert compile_finder([PHRASE]).search(squash(f"Hello! {wording.upper()}?? Thanks"))


@given(seed=st.integers(0, 10_000))
def test_the_slots_are_read_back(seed):
    wording = write(PHRASE, Random(seed), fillers=FILLERS).replace(" ", "\n")
    reader = compile_reader(PHRASE, slots={"shipment": r"SH-\d+"})
    assert find_slots(reader, wording)["shipment"] in wording
    assert find_slots(reader, "where is my dog") is None


@pytest.mark.parametrize("broken", ["a ] b", "[a|b", "a | b"])
def test_a_phrase_with_unmatched_brackets_is_refused(broken):
    with pytest.raises(UnableToReadPhrase):
        parse_phrase(broken)


@given(seed=st.integers(0, 10_000))
def test_a_slip_of_the_pen_is_undone(seed):
    speller = Speller(literal_words(["please deliver the broken pallets tomorrow morning"]))
    text = "Please deliver the broken pallets tomorrow morning"
    assert speller.squash(speller.slip(text, Random(seed))) == squash(text)
