"""Holds that no cell of ours becomes a formula in somebody's spreadsheet."""

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.spreadsheets import as_csv, defuse


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "  =HYPERLINK(1)", "\n=1"])
def test_a_text_that_would_be_a_formula_is_text(cell):
    assert defuse(cell) == "'" + cell


def test_numbers_stay_numbers():
    assert [defuse(cell) for cell in (Decimal("-0.0000000001"), -3, 0.5, None)] == ["-0.0000000001", "-3", "0.5", ""]


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=5))
def test_what_is_written_is_what_is_read_and_never_begins_a_formula(rows):
    text = as_csv("x.csv", ("a", "b"), rows).content.decode()
    read = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert [[cell.removeprefix("'") for cell in row] for row in read] == [
        [cell.removeprefix("'") for cell in row] for row in rows
    ]
    assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r")) for row in read for cell in row)
