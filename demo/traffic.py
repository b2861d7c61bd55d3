"""Sends the demo's traffic, so that the product meets it as it would a tenant's: over HTTP, by the official SDKs.

    python -m demo.traffic --base-url http://127.0.0.1:8100 --key us_… --calls 5000 --concurrency 16 --seed 3

A share of the calls goes through the openai and anthropic SDKs (several milliseconds of processor each), the rest
sends the same bodies plainly. Prints one JSON line a second and a summary; drivers call `send`. Seeds 0 to 15 never
share a query.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

import aiohttp

from demo.callers import Heard, PlainCaller, SdkCaller, UnableToCall
from demo.grammar.odd import draw_odd
from demo.grammar.sampling import SEEDS, Sample, Workload, draw_samples
from demo.workloads import DIALECTS, WORKLOADS, build_body, speak

OnCall = Callable[["Outcome"], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send where. `rate` is a ceiling in calls a second, None for as fast as `concurrency` allows; `weights`
    say how often each workload is drawn, in relation to the others, evenly if there are none.
    """

    base_url: str
    key: str = field(repr=False)
    calls: int
    concurrency: int = 16
    seed: int = 0
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    weights: Mapping[str, float] = field(default_factory=dict)
    dialects: tuple[str, ...] = DIALECTS  # that the provider speaks
    model: str = ""  # that it is asked for, each workload's own if none is named
    odd_share: float = 0.02
    stream_share: float = 0.1
    sdk_share: float = 0.1
    rate: float | None = None


@dataclass(frozen=True, slots=True)
class Errand:
    """One call to make."""

    workload: Workload
    sample: Sample = field(repr=False)
    odd: bool
    stream: bool
    sdk: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call. `agrees` compares with the expert's answer; `status` is 0 where nothing came back."""

    workload: str
    arm: str  # from x-understudy-arm, "" without it
    status: int
    ms: float
    agrees: bool
    odd: bool
    ambiguous: bool
    stream: bool
    sdk: bool
    error: str  # a short kind, "" for none
    workload_id: str = ""  # from x-understudy-workload


@dataclass(slots=True)
class Tally:
    """The counts of a run so far."""

    started: float
    calls: int = 0
    errors: int = 0
    agreed: int = 0
    arms: Counter[str] = field(default_factory=Counter)
    agreed_by_arm: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    workloads: Counter[str] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Counts one call."""
        self.calls += 1
        self.workloads[outcome.workload] += 1
        if outcome.error:
            self.errors += 1
            self.kinds[outcome.error] += 1
            return
        self.arms[outcome.arm or "none"] += 1
        self.agreed += outcome.agrees
        self.agreed_by_arm[outcome.arm or "none"] += outcome.agrees
        self.ms.append(outcome.ms)

    def report(self, *, now: float) -> dict[str, object]:
        """The counts as a JSON-able object; `now` on the clock of `started`."""
        seconds = max(now - self.started, 1e-9)
        ordered = sorted(self.ms)
        return {
            "calls": self.calls,
            "seconds": round(seconds, 2),
            "per_second": round(self.calls / seconds, 1),
            "arms": dict(self.arms),
            "agreed": self.agreed,
            "agreed_by_arm": dict(self.agreed_by_arm),
            "workloads": dict(self.workloads),
            "errors": self.errors,
            "error_kinds": dict(self.kinds),
            "p50_ms": round(ordered[len(ordered) // 2], 1) if ordered else None,
            "p99_ms": round(ordered[len(ordered) * 99 // 100], 1) if ordered else None,
        }


def plan_errands(plan: Plan) -> Iterator[Errand]:
    """The calls of a plan, always the same for the same plan. Raises UnableToPartition for a seed beyond the last."""
    rng = Random(f"errands/{plan.seed}")
    spoken = [speak(WORKLOADS[name], dialects=plan.dialects, model=plan.model) for name in plan.workloads]
    streams = [(workload, draw_samples(workload, seed=plan.seed)) for workload in spoken]
    weights = [plan.weights.get(name, 0.0 if plan.weights else 1.0) for name in plan.workloads]
    for _ in range(plan.calls):
        ((workload, samples),) = rng.choices(streams, weights)
        odd = rng.random() < plan.odd_share
        sample = draw_odd(workload, rng) if odd else next(samples)
        yield Errand(workload, sample, odd, stream=rng.random() < plan.stream_share, sdk=rng.random() < plan.sdk_share)


async def send(plan: Plan, *, on_call: OnCall | None = None, stop: asyncio.Event | None = None) -> Tally:
    """Makes a plan's calls and returns their counts. `on_call` hears each outcome; setting `stop` ends it early."""
    tally = Tally(started=time.monotonic())
    errands = plan_errands(plan)
    pace = _Pace(plan.rate)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        plain = PlainCaller(session, base_url=plan.base_url, key=plan.key)
        sdk = await stack.enter_async_context(SdkCaller(base_url=plan.base_url, key=plan.key))

        async def work() -> None:
            for errand in errands:
                if stop is not None and stop.is_set():
                    return
                await pace.wait()
                outcome = await _run_errand(errand, sdk if errand.sdk else plain)
                tally.add(outcome)
                if on_call is not None:
                    on_call(outcome)

        await asyncio.gather(*(work() for _ in range(plan.concurrency)))
    return tally


class _Pace:
    """Spaces calls evenly at a ceiling of so many a second."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = time.monotonic()

    async def wait(self) -> None:
        """Returns when the next call may start."""
        now = time.monotonic()
        self._next = max(self._next, now - self._gap) + self._gap
        if self._gap and self._next > now:
            await asyncio.sleep(self._next - now)


async def _run_errand(errand: Errand, caller: PlainCaller | SdkCaller) -> Outcome:
    body = build_body(errand.workload, query=errand.sample.query, stream=errand.stream)
    started = time.monotonic()
    heard, error = Heard(status=0, arm="", text=""), ""
    try:
        heard = await caller.call(errand.workload.dialect, body)
    except UnableToCall as failed:
        heard, error = failed.heard, failed.kind
    return Outcome(
        workload=errand.workload.name,
        arm=heard.arm,
        status=heard.status,
        ms=(time.monotonic() - started) * 1000,
        agrees=not error and _same(heard.text, errand.sample.answer),
        odd=errand.odd,
        ambiguous=errand.sample.ambiguous,
        stream=errand.stream,
        sdk=errand.sdk,
        error=error,
        workload_id=heard.workload,
    )


def _same(mine: str, expected: str) -> bool:
    """Whether two answers say the same: as JSON where the expected one is an object, else as a label."""
    if not expected.startswith("{"):
        return mine.strip().casefold() == expected
    try:
        return bool(json.loads(mine) == json.loads(expected))
    except ValueError:
        return False


async def _run_and_print(plan: Plan) -> Tally:
    last = time.monotonic()
    progress = Tally(started=last)

    def print_progress(outcome: Outcome) -> None:
        nonlocal last
        progress.add(outcome)
        now = time.monotonic()
        if now - last >= 1:
            last = now
            _print({"calls": progress.calls, "arms": dict(progress.arms), "errors": progress.errors})

    return await send(plan, on_call=print_progress)


def _print(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _read_plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m demo.traffic", description="Send the demo's traffic.")
    parser.add_argument("--base-url", required=True, help="of the gateway or the teacher, without /v1")
    parser.add_argument("--key", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, choices=range(SEEDS), metavar=f"0..{SEEDS - 1}")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated")
    parser.add_argument("--odd-share", type=float, default=0.02)
    parser.add_argument("--stream-share", type=float, default=0.1)
    parser.add_argument("--sdk-share", type=float, default=0.1)
    parser.add_argument("--rate", type=float, default=None, help="ceiling in calls a second")
    wanted = parser.parse_args()
    names = tuple(wanted.workloads.split(","))
    if unknown := set(names) - set(WORKLOADS):
        parser.error(f"unknown workloads: {', '.join(sorted(unknown))}")
    return Plan(**{**vars(wanted), "workloads": names})


def main() -> None:
    """Reads the command line, sends, and prints the summary; the exit status is 1 where a call failed."""
    tally = asyncio.run(_run_and_print(_read_plan()))
    _print({"summary": tally.report(now=time.monotonic())})
    sys.exit(1 if tally.errors else 0)


if __name__ == "__main__":
    main()
