"""The months that statements are about: half-open, in UTC."""

from datetime import UTC, datetime


def month_of(at: datetime) -> tuple[datetime, datetime]:
    """The start of the month an instant lies in, and the start of the next."""
    start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = start.replace(year=start.year + 1, month=1) if start.month == 12 else start.replace(month=start.month + 1)
    return start, end
