"""Writes and reads contract clauses, whose duty, party, sum and period are to be extracted as JSON.

Every clause names both sides, so that the obliged party follows from the sentence and not from a word in it.
"""

import json
import re
from functools import cache
from random import Random

from demo.grammar.fillers import CURRENCIES, FILLERS, fill_date
from demo.grammar.phrases import Filler, compile_reader, find_slots, load_phrases, write
from demo.grammar.sampling import AMBIGUOUS_SHARE, Sample, Workload, pick_by_text

SYSTEM = """You extract terms from transport contracts for the legal team of Meridian Logistics.

Read the clause and return one JSON object with exactly these keys:
- clause_type: payment_term, late_payment, liability_cap, demurrage, termination_notice, insurance_cover or
  confidentiality
- party: who is bound or must act: carrier, customer or both (the haulier and the contractor are the carrier, the client
  and the shipper are the customer)
- amount: the sum as a plain number without separators, or null if the clause names none
- currency: the three letter code of that sum, or null
- days: the period in days as a number, or null if the clause names none

Ignore headings, clause numbers, dates and references to annexes. If the text is no contract clause, every value is
null. Answer with the JSON object only, without a code fence and without comments."""

_FILE = "clauses.txt"
_TYPES = (
    "payment_term",
    "late_payment",
    "liability_cap",
    "demurrage",
    "termination_notice",
    "insurance_cover",
    "confidentiality",
)

_PARTIES = {
    "carrier": ("the Carrier", "Meridian", "the Haulier", "the Contractor"),
    "customer": ("the Customer", "the Client", "the Shipper", "the Principal"),
    "both": ("either party", "each party", "both parties"),
}
_COUNTERPARTS = {
    "carrier": _PARTIES["customer"],
    "customer": _PARTIES["carrier"],
    "both": ("the other party", "the other side"),
}
_SIGNS = {"€": "EUR", "$": "USD", "£": "GBP"}
_NUMBER_WORDS = {
    5: "five",
    7: "seven",
    10: "ten",
    14: "fourteen",
    15: "fifteen",
    20: "twenty",
    21: "twenty one",
    30: "thirty",
    45: "forty five",
    60: "sixty",
    90: "ninety",
    120: "one hundred and twenty",
    180: "one hundred and eighty",
}

_FILLERS: dict[str, Filler] = {
    "section": lambda rng: f"{rng.randrange(1, 30)}.{rng.randrange(1, 15)}",
    "article": lambda rng: str(rng.randrange(1, 60)),
    "letter": lambda rng: rng.choice("abcdefghk").upper(),
    "city": FILLERS["city"],
    "company": FILLERS["company"],
    "date": fill_date,
}

_NAMES = {alias.casefold(): party for party, aliases in _PARTIES.items() for alias in aliases}
_SLOTS = {
    "party": "|".join(alias.replace(" ", r"\s+") for aliases in _PARTIES.values() for alias in aliases),
    "other": "|".join(alias.replace(" ", r"\s+") for aliases in _COUNTERPARTS.values() for alias in aliases),
    "money": r"[A-Z]{3}\s*[\d,.]*\d|[€$£]\s*[\d,.]*\d|[\d,.]*\d\s*[A-Z]{3}",
    "days": r"[\w\s()]{0,40}?\d+\)?[\w\s()]{0,40}?days",
}


def draw(rng: Random) -> Sample:
    """A clause and its terms as JSON; ambiguous where two clauses stand in one text."""
    clause, answer = _draw_clause(rng.choice(_TYPES), rng)
    ambiguous = rng.random() < AMBIGUOUS_SHARE
    second = _draw_clause(rng.choice(_TYPES), rng)[0] + "." if ambiguous else _write("(tails)", rng)
    heading, lead = _write("(headings)", rng), _write("(leads)", rng)
    body = f"{lead} {clause}" if lead else clause[0].upper() + clause[1:]
    query = _set_type(f"{heading} {body}. {second}".strip(), rng)
    return Sample(query, read(query) if ambiguous else answer, ambiguous)


def read(query: str) -> str:
    """The clause's terms as JSON, from its text alone; every value null where there is no clause."""
    found = [
        _to_json(clause_type, party=_NAMES[_tidy(terms["party"])], money=terms.get("money"), days=terms.get("days"))
        for clause_type, readers in _readers().items()
        for terms in [_find_terms(readers, query)]
        if terms is not None
    ]
    if not found:
        return _to_json(None, party=None, money=None, days=None)
    return found[0] if len(found) == 1 else found[pick_by_text(query, options=len(found))]


def _draw_clause(clause_type: str, rng: Random) -> tuple[str, str]:
    party = rng.choice(("carrier", "carrier", "customer", "customer", "both"))
    party_name, other_name = rng.choice(_PARTIES[party]), rng.choice(_COUNTERPARTS[party])
    money, days = _fill_money(rng), _fill_days(rng)
    fillers: dict[str, Filler] = {
        "party": lambda _: party_name,
        "other": lambda _: other_name,
        "money": lambda _: money,
        "days": lambda _: days,
    }
    clause = write(rng.choice(load_phrases(_FILE)[clause_type]), rng, fillers=fillers)
    named_money, named_days = money if money in clause else None, days if days in clause else None
    return clause, _to_json(clause_type, party=party, money=named_money, days=named_days)


def _to_json(clause_type: str | None, *, party: str | None, money: str | None, days: str | None) -> str:
    amount, currency = _read_money(money) if money else (None, None)
    number = re.search(r"\d+", days) if days else None
    terms = {
        "clause_type": clause_type,
        "party": party,
        "amount": amount,
        "currency": currency,
        "days": int(number[0]) if number else None,
    }
    return json.dumps(terms)


def _read_money(text: str) -> tuple[int, str]:
    digits = re.sub(r"\.\d\d$|,", "", re.sub(r"[^\d,.]", "", text))
    sign = re.search(r"[€$£]", text)
    letters = re.search(r"[A-Za-z]{3}", text)
    return int(digits), _SIGNS[sign[0]] if sign else letters[0].upper() if letters else ""


def _find_terms(readers: list[re.Pattern[str]], query: str) -> dict[str, str] | None:
    return next((terms for reader in readers if (terms := find_slots(reader, query)) is not None), None)


@cache
def _readers() -> dict[str, list[re.Pattern[str]]]:
    sections = load_phrases(_FILE)
    return {name: [compile_reader(phrase, slots=_SLOTS) for phrase in sections[name]] for name in _TYPES}


def _fill_money(rng: Random) -> str:
    currency = rng.choice(CURRENCIES)
    amount = rng.choice((rng.randrange(5, 100) * 10, rng.randrange(10, 100) * 100, rng.randrange(10, 500) * 1000))
    shapes = [f"{currency} {amount:,}", f"{amount:,} {currency}", f"{currency} {amount}", f"{currency} {amount:,}.00"]
    shapes.extend(f"{sign}{amount:,}" for sign, code in _SIGNS.items() if code == currency)
    return rng.choice(shapes)


def _fill_days(rng: Random) -> str:
    number = rng.choice(list(_NUMBER_WORDS))
    kind = rng.choice(("", "", "calendar ", "business "))
    word = _NUMBER_WORDS[number]
    shapes = (f"{number}", f"{number}", f"{word} ({number})", f"{number} ({word})")
    return f"{rng.choice(shapes)} {kind}days"


def _write(section: str, rng: Random) -> str:
    return write(rng.choice(load_phrases(_FILE)[section]), rng, fillers=_FILLERS)


def _set_type(text: str, rng: Random) -> str:
    """Sets the clause as documents do: capitals here and there, lines broken by a scanner."""
    manner = rng.random()
    if manner < 0.06:
        return text.upper()
    if manner < 0.25:
        words = text.split(" ")
        width = rng.randrange(6, 14)
        return "\n".join(" ".join(words[at : at + width]) for at in range(0, len(words), width))
    return text


def _tidy(name: str) -> str:
    return " ".join(name.casefold().split())


WORKLOAD = Workload(
    name="clauses",
    dialect="anthropic",
    model="claude-sonnet-4-6",
    system=SYSTEM,
    template='Clause:\n"""\n{query}\n"""\n\nJSON:',
    draw=draw,
    read=read,
    max_tokens=120,
)
