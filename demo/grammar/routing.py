"""Writes and reads what customers of a carrier ask, to be routed to one of eight desks."""

from demo.grammar.labelling import label_workload

SYSTEM = """You route incoming messages for the customer desk of Meridian Logistics, a European freight company.

Read the customer's message and choose the one desk that should handle it. The desks are:
- track_shipment: asks where a shipment is or when it arrives
- change_delivery: wants another address, day, time or person for a delivery
- claim_damage: goods arrived broken, wet or incomplete and somebody should pay
- billing_question: asks about an invoice, a charge, a refund or a payment
- customs_documents: needs or asks about papers for customs
- quote_request: asks what a new transport would cost
- complaint: unhappy with staff, service or repeated failures, without asking for money
- other: everything else, also messages that are not in English or not about logistics

Go by what the customer wants done now, not by what is merely mentioned. Answer with the label only, in lower case, \
without any explanation or punctuation."""

_WEIGHTS = {
    "track_shipment": 0.25,
    "change_delivery": 0.16,
    "claim_damage": 0.13,
    "billing_question": 0.16,
    "customs_documents": 0.03,
    "quote_request": 0.025,
    "complaint": 0.125,
    "other": 0.12,
}

WORKLOAD = label_workload(
    name="routing",
    model="gpt-4o",
    system=SYSTEM,
    template="Customer message:\n{query}\n\nLabel:",
    weights=_WEIGHTS,
    nothing="other",
)
