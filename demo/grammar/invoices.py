"""Writes and reads carriers' invoices, in which one line may be wrong, to be reported by a tool call."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from demo.grammar.fillers import FILLERS, fill_date, fill_invoice, options
from demo.grammar.sampling import AMBIGUOUS_SHARE, Sample, Workload, pick_by_text

SYSTEM = """You check carriers' invoices for the accounts payable team of Meridian Logistics before they are paid.

Read the invoice and call the tool report_anomaly once. Its arguments are the anomaly and the number of the line that
has it. The anomalies are:
- none: every line is in order; line is 0
- duplicate_line: a line repeats the one before it, with the same reference
- wrong_currency: a line is not priced in EUR, the currency of our contracts
- missing_reference: a line has no shipment reference
- unlisted_surcharge: a line charges something the contract does not list (listed are freight, fuel surcharge, road
  toll, customs handling, tail lift and waiting time)
- negative_amount: a line has an amount below zero, which belongs on a credit note
- not_an_invoice: the text is no invoice; line is 0

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
_FOOTERS = (
    "",
    "",
    "Payable within 30 days.",
    "Thank you for your business.",
    "Prices exclude VAT.",
    "Questions: billing desk {carrier}.",
    "Terms as agreed with {company}.",
)
_ANOMALIES = {
    "none": 0.36,
    "duplicate_line": 0.07,
    "wrong_currency": 0.15,
    "missing_reference": 0.15,
    "unlisted_surcharge": 0.15,
    "negative_amount": 0.12,
}

_UNLISTED_NAMES = re.compile("|".join(re.sub(r" ?\{a\}", "", name) for name in _UNLISTED), re.IGNORECASE)
_LINE = re.compile(r"^(?:Line |Pos )?(\d{1,2})(?:\)|\.|:) (.+)$", re.MULTILINE | re.IGNORECASE)
_REFERENCE = re.compile(r"\b(?:SH-\d{6}|TRK\d{8})\b", re.IGNORECASE)
_PRICED = re.compile(rf"\b(?:EUR|{'|'.join(_FOREIGN)})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    """One charge on an invoice; an empty `reference` is the missing one."""

    text: str
    reference: str
    quantity: int
    cents: int
    currency: str


def draw(rng: Random) -> Sample:
    """An invoice of two to four lines and what is wrong with it; ambiguous where two lines are wrong."""
    lines = [_draw_line(rng) for _ in range(rng.randrange(2, 5))]
    [anomaly] = rng.choices(list(_ANOMALIES), list(_ANOMALIES.values()))
    ambiguous = rng.random() < AMBIGUOUS_SHARE
    at = rng.randrange(1, len(lines)) if anomaly == "duplicate_line" else rng.randrange(len(lines))
    if ambiguous:
        lines[0], lines[1] = _spoil(lines, 0, "missing_reference", rng), _spoil(lines, 1, "wrong_currency", rng)
    else:
        lines[at] = _spoil(lines, at, anomaly, rng)
    query = _set_out(lines, rng)
    answer = _to_json(anomaly, 0 if anomaly == "none" else at + 1)
    return Sample(query, read(query) if ambiguous else answer, ambiguous)


def read(query: str) -> str:
    """The arguments of the tool call, from the invoice's text alone."""
    lines = [(int(number), text) for number, text in _LINE.findall(query) if _PRICED.search(text)]
    found: list[str] = []
    before = ""
    for number, text in lines:
        if (anomaly := _judge(text, before)) is not None:
            found.append(_to_json(anomaly, number))
        before = text
    if not lines:
        return _to_json("not_an_invoice", 0)
    return found[pick_by_text(query, options=len(found))] if found else _to_json("none", 0)


def _judge(text: str, before: str) -> str | None:
    findings: Mapping[str, bool] = {
        "duplicate_line": text.casefold() == before.casefold(),
        "wrong_currency": not re.search(r"\bEUR\b", text, re.IGNORECASE),
        "missing_reference": not _REFERENCE.search(text),
        "unlisted_surcharge": _UNLISTED_NAMES.search(text) is not None,
        "negative_amount": re.search(r"[\s(]-\d", text.replace("= -", " -")) is not None,
    }
    return next((anomaly for anomaly, is_so in findings.items() if is_so), None)


def _draw_line(rng: Random) -> Line:
    reference = rng.choice((f"SH-{rng.randrange(1_000_000):06d}", f"TRK{rng.randrange(10_000_000, 99_999_999)}"))
    return Line(_name(_LISTED, rng), reference, rng.choice((1, 1, 2, 3, 4, 6, 8)), rng.randrange(1500, 90_000), "EUR")


def _spoil(lines: list[Line], at: int, anomaly: str, rng: Random) -> Line:
    line = lines[at]
    if anomaly == "duplicate_line":
        return lines[at - 1]
    if anomaly == "wrong_currency":
        return replace(line, currency=rng.choice(_FOREIGN))
    if anomaly == "missing_reference":
        return replace(line, reference="")
    if anomaly == "unlisted_surcharge":
        return replace(line, text=_name(_UNLISTED, rng))
    return replace(line, cents=-line.cents) if anomaly == "negative_amount" else line


def _name(names: tuple[str, ...], rng: Random) -> str:
    start, end = rng.sample(options("city"), 2)
    return rng.choice(names).format(a=start, b=end)


def _set_out(lines: list[Line], rng: Random) -> str:
    values = {
        "number": fill_invoice(rng),
        "carrier": FILLERS["carrier"](rng),
        "company": FILLERS["company"](rng),
        "date": fill_date(rng),
    }
    style = rng.randrange(4)
    rows = [_set_line(style, number, line) for number, line in enumerate(lines, start=1)]
    footer = rng.choice(_FOOTERS).format(**values)
    text = "\n".join([rng.choice(_HEADERS).format(**values), *rows, *([footer] if footer else [])])
    return text.upper() if rng.random() < 0.05 else text


def _set_line(style: int, number: int, line: Line) -> str:
    total = f"{line.cents * line.quantity / 100:.2f}"
    unit = f"{line.quantity} x {line.cents / 100:.2f}"
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
