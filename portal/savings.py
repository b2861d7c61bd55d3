"""Savings: the months, one statement with its line items and interval, and the same as CSV."""

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404

from billing.models import Invoice, SavingsStatement
from billing.spend import line_items
from billing.statement import share_in_force
from ingestion.models import Workload
from portal.access import PortalRequest, page, show
from portal.charts import draw_months
from portal.spreadsheets import as_csv

COLUMNS = (
    "kind",
    "workload",
    "arm",
    "model",
    "calls",
    "input_tokens",
    "output_tokens",
    "would_have_cost",
    "was_spent",
    "currency",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a statement: the entries of a kind, workload, arm and model added up."""

    kind: str
    workload: str
    arm: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    would: Decimal
    spent: Decimal
    currency: str

    @property
    def saving(self) -> Decimal:
        """What it saved; negative for an overhead."""
        return self.would - self.spent


@page()
def statement_list(request: PortalRequest) -> HttpResponse:
    """Every month's account."""
    statements = list(SavingsStatement.objects.order_by("-starts_at"))
    months = [
        (f"{one.starts_at:%b %Y}", float(one.counterfactual), float(one.counterfactual - one.saving))
        for one in statements[:12]
    ]
    chart = draw_months(months[::-1]) if months else ""
    return show(request, "savings.html", statements=statements, chart=chart, share=share_in_force())


@page()
def statement_page(request: PortalRequest, id: UUID) -> HttpResponse:
    """One month's account with its line items and its invoice."""
    statement = _statement(id)
    return show(
        request,
        "statement.html",
        statement=statement,
        items=_items(statement),
        spent=statement.counterfactual - statement.saving,
        invoice=Invoice.objects.filter(statement=statement).first(),
    )


@page()
def statement_csv(request: PortalRequest, id: UUID) -> HttpResponse:
    """The line items for a spreadsheet."""
    statement = _statement(id)
    rows = [
        (
            one.kind,
            one.workload,
            one.arm,
            one.model,
            one.calls,
            one.input_tokens,
            one.output_tokens,
            one.would,
            one.spent,
            one.currency,
        )
        for one in _items(statement)
    ]
    return as_csv(f"{statement.number}.csv", COLUMNS, rows)


def _statement(id: UUID) -> SavingsStatement:
    found: SavingsStatement = get_object_or_404(SavingsStatement.objects.all(), id=id)
    return found


def _items(statement: SavingsStatement) -> list[Item]:
    names: dict[UUID | None, str] = dict(Workload.objects.values_list("id", "name"))
    rows = line_items(statement).order_by("kind", "-would")
    return [
        Item(
            kind=row["kind"],
            workload=names.get(row["workload_id"], ""),
            arm=row["arm"],
            model=row["model"],
            calls=row["n"],
            input_tokens=row["read"],
            output_tokens=row["written"],
            would=row["would"],
            spent=row["spent"],
            currency=row["currency"],
        )
        for row in rows
    ]
