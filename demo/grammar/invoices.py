"""Writes and reads lines of carriers' invoices, in which something may be wrong, to be reported by a tool call."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from demo.grammar.fillers import FILLERS, fill_date, fill_invoice, options
from demo.grammar.sampling import AMBIGUOUS_SHARE, Sample, Workload, pick_by_text

SYSTEM = """You check carriers' invoices, line by line, for the accounts payable team of Meridian Logistics before they
are paid.

Read the line under its invoice's heading and call the tool report_anomaly once. Its arguments are the anomaly and the
number of the line, which is 0 where nothing is wrong. The anomalies are:
- none: the line is in order
- zero_amount: it charges nothing
- wrong_currency: it is not priced in EUR, the currency of our contracts
- missing_reference: it has no shipment reference
- unlisted_surcharge: it charges something the contract does not list (listed are freight, fuel surcharge, road toll,
  customs handling, tail lift and waiting time)
- negative_amount: it has an amount below zero, which belongs on a credit note
- not_an_invoice: the text is no line of an invoice

Never answer in prose: only call the tool, and only once."""

_LISTED = (
    "Road freight {a} - {b}",
    "Road freight {a} - {b}",
    "Groupage {a} - {b}",
    "Air freight {a} - {b}",
    "Linehaul {a} - {b}",
    "Fuel surcharge {a} - {b}",
    "Road toll {a} - {b}",
    "Customs handling {a}",
    "Tail lift {a}",
    "Waiting time {a}",
    "Last mile freight {a}",
)
_UNLISTED = (
    "Administration fee",
    "Weekend premium",
    "Peak season supplement",
    "Paper invoice fee",
    "System usage fee",
    "Handling extra {a}",
    "Loyalty contribution",
    "Climate levy {a}",
    "Key account charge",
    "Driver bonus {a}",
    "Data entry fee",
    "Priority add-on {a}",
)
_FOREIGN = ("USD", "GBP", "CHF", "PLN", "SEK")
_HEADERS = (
    "Invoice {number} from {carrier}, {date}",
    "{carrier}\nInvoice no. {number}\nDate {date}",
    "INVOICE {number}\n{carrier} to Meridian Logistics, {date}",
    "{carrier} bills Meridian for {company}, invoice {number} of {date}",
    "Carrier: {carrier}\nInvoice: {number} ({date})\nCustomer account: {company}",
)
_ANOMALIES = {
    "none": 0.36,
    "zero_amount": 0.07,
    "wrong_currency": 0.15,
    "missing_reference": 0.15,
    "unlisted_surcharge": 0.15,
    "negative_amount": 0.12,
}

_UNLISTED_NAMES = re.compile("|".join(re.sub(r" ?\{a\}", "", name) for name in _UNLISTED), re.IGNORECASE)
_LINE = re.compile(r"^(?:Line |Pos )?(\d{1,2})(?:\)|\.|:) (.+)$", re.MULTILINE | re.IGNORECASE)
_REFERENCE = re.compile(r"\b(?:SH-\d{4}|TRK\d{5})\b", re.IGNORECASE)
_PRICED = re.compile(rf"\b(?:EUR|{'|'.join(_FOREIGN)})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    """One charge on an invoice; an empty `reference` is the missing one."""

    text: str
    reference: str
    quantity: int
    euros: int  # of each
    currency: str


def draw(rng: Random) -> Sample:
    """A line of an invoice and what is wrong with it; ambiguous where two things are."""
    [anomaly] = rng.choices(list(_ANOMALIES), list(_ANOMALIES.values()))
    ambiguous = rng.random() < AMBIGUOUS_SHARE
    number, line = rng.randrange(1, 13), _draw_line(rng)
    if ambiguous:
        line = _spoil(_spoil(line, "missing_reference", rng), "wrong_currency", rng)
    else:
        line = _spoil(line, anomaly, rng)
    query = _set_out(number, line, rng)
    answer = _to_json(anomaly, 0 if anomaly == "none" else number)
    return Sample(query, read(query) if ambiguous else answer, ambiguous)


def read(query: str) -> str:
    """The arguments of the tool call, from the line's text alone."""
    lines = [(int(number), text) for number, text in _LINE.findall(query) if _PRICED.search(text)]
    if not lines:
        return _to_json("not_an_invoice", 0)
    number, text = lines[0]
    found = [_to_json(anomaly, number) for anomaly in _judge(text)]
    return found[pick_by_text(query, options=len(found))] if found else _to_json("none", 0)


def _judge(text: str) -> list[str]:
    findings: Mapping[str, bool] = {
        "zero_amount": re.search(r"(?:EUR|=|\|) 0\b", text, re.IGNORECASE) is not None,
        "wrong_currency": not re.search(r"\bEUR\b", text, re.IGNORECASE),
        "missing_reference": not _REFERENCE.search(text),
        "unlisted_surcharge": _UNLISTED_NAMES.search(text) is not None,
        "negative_amount": re.search(r"[\s(]-\d", text) is not None,
    }
    return [anomaly for anomaly, is_so in findings.items() if is_so]


def _draw_line(rng: Random) -> Line:
    reference = rng.choice((f"SH-{rng.randrange(10_000):04d}", f"TRK{rng.randrange(10_000, 99_999)}"))
    return Line(_name(_LISTED, rng), reference, rng.choice((1, 1, 2, 3, 4, 6, 8)), rng.randrange(15, 900), "EUR")


def _spoil(line: Line, anomaly: str, rng: Random) -> Line:
    if anomaly == "zero_amount":
        return replace(line, euros=0)
    if anomaly == "wrong_currency":
        return replace(line, currency=rng.choice(_FOREIGN))
    if anomaly == "missing_reference":
        return replace(line, reference="")
    if anomaly == "unlisted_surcharge":
        return replace(line, text=_name(_UNLISTED, rng))
    return replace(line, euros=-line.euros) if anomaly == "negative_amount" else line


def _name(names: tuple[str, ...], rng: Random) -> str:
    start, end = rng.sample(options("city"), 2)
    return rng.choice(names).format(a=start, b=end)


def _set_out(number: int, line: Line, rng: Random) -> str:
    values = {
        "number": fill_invoice(rng),
        "carrier": FILLERS["carrier"](rng),
        "company": FILLERS["company"](rng),
        "date": fill_date(rng),
    }
    text = f"{rng.choice(_HEADERS).format(**values)}\n{_set_line(rng.randrange(4), number, line)}"
    return text.upper() if rng.random() < 0.05 else text


def _set_line(style: int, number: int, line: Line) -> str:
    total = line.euros * line.quantity
    unit = f"{line.quantity} x {line.euros}"
    if style == 0:
        return f"{number}) {line.text} | ref {line.reference or '-'} | {unit} | {total} {line.currency}"
    if style == 1:
        return f"{number}. {line.reference or 'no ref'} {line.text}, {unit} = {total} {line.currency}"
    if style == 2:
        return f"Line {number}: {line.text} ({line.reference or 'no reference'}) {line.currency} {total}"
    return f"Pos {number}: {line.currency} {total} {line.text} / {line.reference or 'n/a'}"


def _to_json(anomaly: str, line: int) -> str:
    return json.dumps({"anomaly": anomaly, "line": line})


WORKLOAD = Workload(
    name="invoices",
    dialect="anthropic",
    model="claude-sonnet-4-6",
    system=SYSTEM,
    template="{query}",
    draw=draw,
    read=read,
    tool=(
        "report_anomaly",
        "Report what is wrong with the invoice, or that nothing is.",
        {
            "type": "object",
            "properties": {
                "anomaly": {"type": "string", "enum": [*_ANOMALIES, "not_an_invoice"]},
                "line": {"type": "integer", "minimum": 0},
            },
            "required": ["anomaly", "line"],
            "additionalProperties": False,
        },
    ),
    max_tokens=120,
)
