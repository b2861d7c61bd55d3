"""One call and what came of it, as far as the gateway goes."""

from collections.abc import Sequence

import msgspec

from ingestion.core.calls import Answer, Ask, Unshown, Usage
from serving.core.routing import Route
from serving.core.snapshot import ProviderEntry
from serving.gateway.authenticate import Caller
from serving.gateway.limits import Reservation
from serving.gateway.memory import Hold


class Call(Unshown, frozen=True, kw_only=True):
    """One call once it is routed. `at` is seconds since the epoch, `started` a reading of perf_counter."""

    id: str
    caller: Caller
    ask: Ask
    fingerprint: str
    workload_id: str | None
    route: Route
    at: float
    started: float
    destinations: Sequence[ProviderEntry]  # where it may be sent, in the order in which they are asked
    failovers: int = 0  # how many of them were asked in vain
    sampled: bool = True  # its content is to be kept
    hold: Hold | None = None  # of memory, where it is counted
    reservation: Reservation = msgspec.field(default_factory=Reservation)  # of the tenant's limits
    understood: bool = True  # False: the request passed through, and is in no dialect that we read
    asks_model: bool = True  # False: it is about an earlier answer, whose use has been counted
    is_written: bool = True  # False: what comes back is no text of a model's, as far as anybody knows
    sent: int = 0  # bytes that went up, where the request passed through

    @property
    def destination(self) -> ProviderEntry:
        """Where it is sent."""
        return self.destinations[self.failovers]


class Outcome(Unshown, frozen=True, kw_only=True):
    """What was answered, as far as it got. `body` is what the caller was sent, unencoded; None if it was too much."""

    status: int
    complete: bool
    body: bytes | None
    answer: Answer | None
    usage: Usage
    estimated: bool
    first_byte_ms: float
    queue_ms: float = 0.0
    written: int = 0  # tokens of all that was written, by length; of a stream without the events around it
