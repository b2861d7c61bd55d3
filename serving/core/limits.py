"""What a call may cost a limit, and for how long: windows, demands and leases, without a clock or a counter in sight.

A limit holds one measure (requests, tokens, spend) in one window of the calendar (UTC) for one scope: a tenant, one of
its keys, or one of its workloads. Amounts are whole numbers; money is in billionths of its currency, exact for every
published price and, up to 9 million, also for a counter that computes in doubles.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum

import msgspec

from ingestion.core.calls import Ask, Usage
from ingestion.core.rating import Rates, cost

BILLIONTHS = 1_000_000_000
MOST = 9_000_000 * BILLIONTHS  # of any amount: below 2**53, where doubles end being exact
NEAR = 5  # a fifth of the amount: with less left, the shared counter is asked for every call
LEASES = 50  # a process takes so much of the amount at a time: a fiftieth
BYTES_PER_TOKEN = 4
TIED = 8000  # tokens of what the provider keeps and the body only names, until the usage is known
MEDIA = 2000  # tokens of a message with pictures or sound, until its usage is known
MOST_OUTPUT, MOST_ANSWERS = 128_000, 128  # beyond which no model goes, whatever a caller says
DEFAULT_OUTPUT = 1000  # tokens of an answer that nothing bounds and whose workload has no history


class Measure(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"  # of input and output
    SPEND = "spend"  # at the provider


class Window(StrEnum):
    """For how long: from the beginning of the UTC minute, day or month to its end."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"


KEPT_SECONDS = {Window.MINUTE: 60, Window.DAY: 3600, Window.MONTH: 3600}  # after a window: its last calls may go on


class LimitEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A limit as the gateway knows it. Without `key_id` and `workload_id` it is the whole tenant's."""

    id: str
    measure: str
    window: str
    amount: int
    key_id: str = ""
    workload_id: str = ""


@dataclass(frozen=True, slots=True)
class Period:
    """One window on the calendar, half-open. Times are seconds since the epoch; a counter of it may go at the last."""

    name: str
    begins: float
    ends: float
    kept_until: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What a call takes from limits, by measure; `spend` is in billionths, 0 where the provider has no price at all."""

    requests: int
    tokens: int
    spend: int

    def of(self, measure: str) -> int:
        """In the limit's own unit."""
        if measure == Measure.REQUESTS:
            return self.requests
        return self.tokens if measure == Measure.TOKENS else self.spend


NOTHING = Demand(requests=0, tokens=0, spend=0)


def period_of(window: str, *, now: float) -> Period:
    """The window that `now` lies in."""
    at = datetime.fromtimestamp(math.floor(now), UTC)
    if window == Window.MINUTE:
        begins = at.replace(second=0)
        return _period(Window.MINUTE, begins, begins + timedelta(minutes=1), "%Y-%m-%dT%H:%M")
    begins = at.replace(hour=0, minute=0, second=0)
    if window == Window.DAY:
        return _period(Window.DAY, begins, begins + timedelta(days=1), "%Y-%m-%d")
    begins = begins.replace(day=1)
    return _period(Window.MONTH, begins, (begins + timedelta(days=32)).replace(day=1), "%Y-%m")


def _period(window: Window, begins: datetime, ends: datetime, form: str) -> Period:
    over = ends.timestamp()
    return Period(begins.strftime(form), begins.timestamp(), over, int(over) + KEPT_SECONDS[window])


def unit_of(measure: str) -> int:
    """How many of a counter's units one is, as people count it: a dollar is a billion, a request one."""
    return BILLIONTHS if measure == Measure.SPEND else 1


def limits_on(limits: Iterable[LimitEntry], *, key_id: str, workload_id: str | None) -> list[LimitEntry]:
    """Those that hold for a call of this key and workload, the tenant's own last: whom a narrower one refuses takes
    nothing of what the others have, not for a moment.
    """
    found = [
        limit
        for limit in limits
        if limit.key_id in ("", key_id) and (not limit.workload_id or limit.workload_id == workload_id)
    ]
    return sorted(found, key=lambda limit: not (limit.key_id or limit.workload_id))


def most_input(ask: Ask) -> int:
    """Tokens to set aside for what is read: a quarter of the body's bytes, which holds tools and schemas as well.

    A picture's bytes say nothing of its tokens: there the texts are counted, and `MEDIA` for what is beside them.
    """
    kept = TIED if ask.tied else 0
    if not any(message.has_media for message in ask.messages):
        return kept + len(ask.raw) // BYTES_PER_TOKEN + 1
    texts = sum(len(message.text.encode("utf-8", "surrogatepass")) for message in ask.messages)
    texts += sum(len(tool.name) + len(tool.schema) for tool in ask.tools) + len(ask.response_format or "")
    return kept + texts // BYTES_PER_TOKEN + MEDIA * sum(message.has_media for message in ask.messages)


def most_output(max_tokens: int | None, *, usual: int, answers: int = 1) -> int:
    """Tokens to set aside for the answers: what the caller allows, or what 99 of 100 of the workload's answers took.

    `usual` is 0 where that is not known.
    """
    bounds = [tokens for tokens in (max_tokens, usual or None) if tokens is not None] or [DEFAULT_OUTPUT]
    return min(max(1, answers), MOST_ANSWERS) * min(*bounds, MOST_OUTPUT)


def demand(usage: Usage, rates: Rates | None) -> Demand:
    """What one call of so many tokens takes. Money is rounded up to a billionth."""
    spend = cost(usage, rates) if rates is not None else Decimal(0)
    return Demand(
        requests=1,
        tokens=usage.input_tokens + usage.output_tokens,
        spend=int((spend * BILLIONTHS).to_integral_value(ROUND_CEILING)),
    )


def find_rates(rates: Mapping[str, Rates], names: Sequence[tuple[str, str]]) -> Rates | None:
    """A model's rates by the first of these names that has any, or the dearest of the last one's provider.

    `rates` are by `provider/model`, and `names` are pairs of the two; None where the provider has none at all. A model
    that nobody has a price for must not be a way past a budget.
    """
    for provider, model in names:
        if (found := rates.get(f"{provider}/{model}")) is not None:
            return found
    of_provider = [found for listed, found in rates.items() if listed.startswith(f"{names[-1][0]}/")]
    return max(of_provider, key=lambda found: found.input + found.output, default=None)


def shown(limit: LimitEntry) -> str:
    """The amount for people."""
    if limit.measure == Measure.SPEND:
        dollars = Decimal(limit.amount) / BILLIONTHS
        return f"{dollars:.2f} USD" if limit.amount % (BILLIONTHS // 100) == 0 else f"{dollars.normalize():f} USD"
    return f"{limit.amount:,} {limit.measure}"


def lease_of(amount: int) -> int:
    """How much of a limit a process takes at a time; of a small one nothing ahead."""
    return amount // LEASES


def floor_of(amount: int) -> int:
    """With so much or less left of a limit, nothing is taken ahead of its use any more."""
    return amount // NEAR
