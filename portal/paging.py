"""Pages of long lists by place and not by number, so that the hundredth costs what the first does."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet

PAGE = 50


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows, newest first, and where the next ones begin ('' at the end)."""

    rows: list[Any]
    next: str


def newest_first(rows: "QuerySet[Any]", *, before: str, field: str = "at", size: int = PAGE) -> Slice:
    """The page of rows before a place that an earlier page named. A place that can't be read is the beginning."""
    place = _read(before)
    if place is not None:
        at, row_id = place
        rows = rows.filter(Q(**{f"{field}__lt": at}) | Q(**{field: at, "id__lt": row_id}))
    found = list(rows.order_by(f"-{field}", "-id")[: size + 1])
    if len(found) <= size:
        return Slice(found, "")
    last = found[size - 1]
    return Slice(found[:size], f"{getattr(last, field).isoformat()}_{last.id}")


def _read(before: str) -> tuple[datetime, UUID] | None:
    at, _, row_id = before.partition("_")
    try:
        read = datetime.fromisoformat(at), UUID(row_id)
    except ValueError:
        return None
    return read if read[0].tzinfo else None
