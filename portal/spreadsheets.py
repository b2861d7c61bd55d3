"""Tables as CSV that a spreadsheet can't be tricked with: a cell that would be a formula is text."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.http import HttpResponse

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> HttpResponse:
    """The table as a download called `name`."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(columns)
    writer.writerows([defuse(cell) for cell in row] for row in rows)
    response = HttpResponse(written.getvalue(), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def defuse(cell: object) -> str:
    """A cell as text; numbers stay numbers, and nothing else can begin a formula."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    if isinstance(cell, datetime):
        return cell.isoformat()
    text = str(cell)
    if isinstance(cell, int | float) or not text.lstrip(" ").startswith(FORMULA_STARTS):
        return text
    return "'" + text
