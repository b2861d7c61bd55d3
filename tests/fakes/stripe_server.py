"""The localstripe server with what it does not know and Stripe does: terms of payment, items on drafts, finalizing.

`python -m tests.fakes.stripe_server --port N --from-scratch`. It keeps nothing on disk, and like Stripe after a day it
knows no idempotency keys: whoever relies on them alone bills twice here. `/_config/requests` lists what was asked.
"""

from aiohttp import web
from localstripe import resources, server

TERMS = ("collection_method", "days_until_due", "auto_advance", "currency")
MARK = "invalid_request_error"


def create_invoice(cls, **data):
    terms = {name: data.pop(name) for name in TERMS if name in data}
    data.pop("pending_invoice_items_behavior", None)
    invoice = cls(**data)
    for name, value in terms.items():
        setattr(invoice, name, value)
    return invoice


def create_item(cls, **data):
    item = cls(**data)
    if item.invoice is not None:
        invoice = resources.Invoice._api_retrieve(item.invoice)
        if invoice.status != "draft":
            raise server.UserError(400, "Invoice is not a draft", {"code": MARK})
        invoice.lines._list.append(resources.InvoiceLineItem(item))
        invoice.currency = item.currency
    return item


def finalize(id, **_):
    invoice = resources.Invoice._api_retrieve(id)
    if invoice.status != "draft":
        raise server.UserError(400, "Invoice is already finalized", {"code": MARK})
    invoice._finalize()
    invoice.hosted_invoice_url = f"https://invoice.stripe.example/{id}"
    return invoice


def pay_out_of_band(id, **_):
    """What a person does in Stripe's dashboard: the money came by bank transfer."""
    invoice = resources.Invoice._api_retrieve(id)
    method = resources.PaymentMethod(
        type="card", card={"number": "4242424242424242", "exp_month": "12", "exp_year": "2030", "cvc": "123"}
    )
    resources.PaymentMethod._api_attach(method.id, customer=invoice.customer)
    customer = resources.Customer._api_retrieve(invoice.customer)
    customer.invoice_settings["default_payment_method"] = method.id
    return resources.Invoice._api_pay_invoice(id)


async def requests_made(request):
    return web.json_response(_asked)


@web.middleware
async def note(request, handler):
    if request.path.startswith("/v1/"):
        _asked.append(f"{request.method} {request.path}")
    return await handler(request)


_asked: list[str] = []
resources.Store.dump_to_disk = lambda self: None
resources.Invoice._api_create = classmethod(create_invoice)
resources.InvoiceItem._api_create = classmethod(create_item)
server.app.router.add_post("/v1/invoices/{id}/finalize", server.api_extra(finalize, ""))
server.app.router.add_post("/v1/invoices/{id}/pay_out_of_band", server.api_extra(pay_out_of_band, ""))
server.app.router.add_get("/_config/requests", requests_made)
server.app.middlewares.append(note)

if __name__ == "__main__":
    server.start()
