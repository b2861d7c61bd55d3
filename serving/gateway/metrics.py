"""Counts what a gateway does, without a lock on the way: one event loop owns the numbers, rendered on demand.

prometheus_client's own counters take a lock at each step, so only its text format is used.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
MOST_REASONS: Final = (
    40  # gates and faults are a short closed list; a label that grows without bound kills a Prometheus
)


class Drops(Protocol):
    """What counts what it could not write."""

    dropped: int


class Histogram:
    """Counts by upper bound in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as the format wants them."""
        total = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Metrics(Collector):
    """All numbers of one gateway process."""

    def __init__(self, *, snapshot: Callable[[], tuple[int, int]], lines: Drops | None = None) -> None:
        """`snapshot` gives the version in force (0: none) and the files refused so far; `lines` is the log of calls."""
        self._snapshot = snapshot
        self._lines = lines
        self._calls: Counter[tuple[str, str, int]] = Counter()
        self._reasons: Counter[str] = Counter()
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._latency: dict[str, Histogram] = {}
        self._student = Histogram()
        self.unrecorded = 0
        self.unsettled = 0
        self.counted_alone = 0
        self.replayed = 0
        self.unkept = 0
        self.departed = 0
        self.failovers = 0
        self.answers_let_go = 0
        self.unrecorded_words = 0
        self.connections_made = 0
        self.connections_reused = 0
        self.in_flight = 0
        self._retries: Counter[str] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def count_call(self, *, dialect: str, arm: str, status: int, reason: str, seconds: float) -> None:
        """One call that was routed, whoever answered it."""
        self._calls[dialect, arm, status // 100] += 1
        if arm == "fallback":
            known = reason in self._reasons or len(self._reasons) < MOST_REASONS
            self._reasons[reason if known else "other"] += 1
        histogram = self._latency.get(arm)
        if histogram is None:
            histogram = self._latency[arm] = Histogram()
        histogram.observe(seconds)

    def count_student(self, *, seconds: float) -> None:
        """One attempt of the student, used or not."""
        self._student.observe(seconds)

    def count_refusal(self, *, dialect: str, status: int) -> None:
        """One call that was refused by the gateway itself."""
        self._refusals[dialect, str(status)] += 1

    def count_retry(self, *, why: str) -> None:
        """One call that is sent to its provider again."""
        self._retries[why] += 1

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client renders."""
        calls = [((dialect, arm, f"{hundreds}xx"), count) for (dialect, arm, hundreds), count in self._calls.items()]
        yield _counter("understudy_calls", "Calls routed.", ("dialect", "arm", "status"), calls)
        reasons = [((reason,), count) for reason, count in self._reasons.items()]
        yield _counter("understudy_fallbacks", "Calls the student could have had.", ("reason",), reasons)
        yield _counter(
            "understudy_refusals", "Calls refused by the gateway.", ("dialect", "status"), self._refusals.items()
        )
        retries = [((why,), count) for why, count in self._retries.items()]
        yield _counter("understudy_retries", "Calls sent to their provider again.", ("why",), retries)
        plain = {
            "unrecorded_calls": self.unrecorded,
            "unsettled_calls": self.unsettled,
            "departed_callers": self.departed,
            "failovers": self.failovers,
            "answers_let_go": self.answers_let_go,
            "unrecorded_words": self.unrecorded_words,
            "calls_counted_alone": self.counted_alone,
            "calls_replayed": self.replayed,
            "answers_unkept": self.unkept,
            "call_lines_dropped": self._lines.dropped if self._lines else 0,
            "provider_connections_made": self.connections_made,
            "provider_connections_reused": self.connections_reused,
        }
        version, failures = self._snapshot()
        for name, count in {**plain, "snapshot_failures": failures}.items():
            yield CounterMetricFamily(f"understudy_{name}", name.replace("_", " ").capitalize() + ".", value=count)
        yield GaugeMetricFamily("understudy_in_flight", "Calls being answered.", value=self.in_flight)
        yield GaugeMetricFamily("understudy_snapshot_version", "Snapshot in force; 0 is none.", value=version)
        latency = HistogramMetricFamily("understudy_call_seconds", "Whole call.", labels=["arm"])
        for arm, histogram in self._latency.items():
            latency.add_metric([arm], histogram.buckets(), sum_value=histogram.sum)
        yield latency
        student = HistogramMetricFamily("understudy_student_seconds", "Student's draft.")
        student.add_metric([], self._student.buckets(), sum_value=self._student.sum)
        yield student


def _counter(
    name: str, text: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    for values, count in counts:
        family.add_metric(list(values), count)
    return family
