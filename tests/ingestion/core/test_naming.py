"""Holds that a workload found in the log has a name that its owner recognises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.workloads import WORKLOADS
from ingestion.core.fingerprint import PLACEHOLDER
from ingestion.core.naming import MOST_WORDS, name_of_prompt


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Classify the sentiment.", "Classify the sentiment"),
        ("You are a helpful assistant. Summarise the ticket in one line.", "Summarise the ticket in one line"),
        ("You are an expert radiologist. Read the report.", "Expert radiologist"),
        ("Your task is to decide whether a claim is covered.", "Decide whether a claim is covered"),
        ("Please translate\nthe text to French", "Translate the text to French"),
        ("Given a tweet, say whether it is kind", "Say whether it is kind"),
        (f"Route calls of {PLACEHOLDER}\n- sales: wants to buy", "Route calls"),
        ("You are a helpful AI assistant.", ""),
        ("…!? ¿ —", ""),
        ("", ""),
    ],
)
def test_a_name_is_the_first_instruction(prompt, name):
    assert name_of_prompt(prompt) == name


def test_what_hangs_on_a_preposition_goes_where_not_all_of_it_fits():
    assert [name_of_prompt(workload.system) for workload in WORKLOADS.values()] == [
        "Route incoming messages for the customer desk",
        "Classify supply chain exceptions",
        "Extract terms from transport contracts",
        "Check carriers' invoices",
    ]


def test_the_next_text_is_asked_where_the_first_tells_nothing():
    assert name_of_prompt("You are an assistant.", "Label this review: ") == "Label this review"


@given(st.text())
def test_a_name_is_short_and_on_one_line(text):
    name = name_of_prompt(text)
    assert len(name.split()) <= MOST_WORDS and len(name) <= 100 and name.splitlines() in ([], [name])
