"""Writes and reads carriers' event texts, to be classified by what went wrong with the shipment."""

from demo.grammar.labelling import label_workload

SYSTEM = """You classify supply chain exceptions for the control tower of Meridian Logistics.

The input is one free text event from a carrier's system or e-mail. Choose the exception that keeps the shipment from
being delivered as planned:
- transit_delay: the vehicle, vessel or flight runs late (traffic, weather, breakdown, missed connection)
- customs_hold: an authority stops the goods or asks for papers, duties or an inspection
- cargo_damage: goods or packaging are broken, wet, leaking or at the wrong temperature
- address_problem: the place or the contact cannot be found or is wrong
- delivery_refused: the consignee does not accept the goods
- lost_or_missing: pieces are short, stolen, misrouted or cannot be located

Several things may be mentioned: choose the one that is open now. If the text is no carrier event, answer none.
Reply with the label alone, no sentence around it."""

_WEIGHTS = {
    "transit_delay": 0.34,
    "customs_hold": 0.17,
    "cargo_damage": 0.15,
    "address_problem": 0.14,
    "delivery_refused": 0.13,
    "lost_or_missing": 0.07,
}

WORKLOAD = label_workload(
    name="exceptions",
    model="gpt-4o-mini",
    system=SYSTEM,
    template="{query}",
    weights=_WEIGHTS,
    nothing="none",
)
