"""The figures that pages show, read for the tenant in force: calls from the ledger's roll-ups, never from all calls."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Count, Sum
from django.db.models.functions import TruncMinute

from billing.models import LedgerEntry, SavingsStatement
from ingestion.core.calls import Arm
from ingestion.models import Call, Workload
from portal.charts import Bucket, Look
from serving.core.certify import clopper_pearson_interval
from serving.core.ramp import confidence_sequence
from serving.models import Audit, Rollout

RECENT = timedelta(hours=1)
WINDOW = timedelta(days=30)
HOURS = 48
MAX_LOOKS = 40
FEWEST_BUCKETS = 20  # a young tenant's few bars stay narrow
HOURS_FOR_HOURLY = 6  # with fewer, the last hour by the minute says more


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often audited student answers agreed with the teacher's, with the exact 95 % interval."""

    audits: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spend:
    """A workload's month: calls, who answered, what it would have cost and did."""

    calls: int
    student_calls: int
    would: Decimal
    spent: Decimal

    @property
    def coverage(self) -> float:
        """Share of calls that the student answered."""
        return self.student_calls / self.calls if self.calls else 0.0

    @property
    def saving(self) -> Decimal:
        """What it saved, overheads counted; negative where they outweigh."""
        return self.would - self.spent


NOTHING = Spend(0, 0, Decimal(0), Decimal(0))


def count_calls(now: datetime) -> list[Bucket]:
    """Calls by arm: by the hour from the ledger over two days, or by the minute over a young tenant's last hour."""
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    rows = list(
        LedgerEntry.objects.filter(kind=LedgerEntry.Kind.CALLS, hour__gte=since)
        .values_list("hour", "arm")
        .annotate(n=Sum("calls"))
    )
    if len({hour for hour, _, _ in rows}) >= HOURS_FOR_HOURLY:
        return _buckets(rows, [since + timedelta(hours=n) for n in range(HOURS)], lambda at: f"{at:%d %b %H}h")
    start = now.replace(second=0, microsecond=0) - RECENT
    recent = Call.objects.filter(at__gte=start).annotate(minute=TruncMinute("at"))
    minutes = list(recent.values_list("minute", "arm").annotate(n=Count("id")))
    return _buckets(minutes, [start + timedelta(minutes=n) for n in range(61)], lambda at: f"{at:%H:%M}")


def _buckets(
    rows: Sequence[tuple[datetime, str, int]], spots: Sequence[datetime], name: Callable[[datetime], str]
) -> list[Bucket]:
    counted: dict[datetime, dict[str, int]] = defaultdict(dict)
    for at, arm, n in rows:
        counted[at][arm] = n
    filled = [Bucket(name(spot), counted.get(spot, {})) for spot in spots]
    first = next((place for place, bucket in enumerate(filled) if bucket.by_arm), 0)
    return filled[min(first, len(filled) - FEWEST_BUCKETS) :]


def has_calls() -> bool:
    """Whether a call was ever made."""
    return bool(Call.objects.exists())


def current_statement(now: datetime) -> SavingsStatement | None:
    """The statement of the month that `now` is in."""
    found: SavingsStatement | None = SavingsStatement.objects.filter(starts_at__lte=now, ends_at__gt=now).first()
    return found


def measure_agreement() -> Agreement | None:
    """Over the audits of rollouts in force whose answers the gate let through; None before the first."""
    done = Audit.objects.filter(status=Audit.Status.DONE, accepted=True).exclude(rollout__state__in=Rollout.OVER)
    return agreement_of(done.filter(differs=True).count(), done.count())


def agreement_of(differing: int, audits: int) -> Agreement | None:
    """The share that agreed with its interval; None of none."""
    if not audits:
        return None
    low, high = clopper_pearson_interval(differing, audits)
    return Agreement(audits, 1 - differing / audits, 1 - high, 1 - low)


def measure_spend(now: datetime) -> dict[UUID | None, Spend]:
    """Each workload's last thirty days, from the ledger; calls of no workload under None."""
    rows = (
        LedgerEntry.objects.filter(hour__gte=now - WINDOW)
        .values("workload_id", "kind", "arm")
        .annotate(n=Sum("calls"), would=Sum("counterfactual"), spent=Sum("actual"))
    )
    found: dict[UUID | None, Spend] = defaultdict(lambda: NOTHING)
    for row in rows:
        was = found[row["workload_id"]]
        calls = row["n"] if row["kind"] == LedgerEntry.Kind.CALLS else 0
        by_student = calls if row["arm"] == Arm.STUDENT else 0
        found[row["workload_id"]] = Spend(
            was.calls + calls, was.student_calls + by_student, was.would + row["would"], was.spent + row["spent"]
        )
    return dict(found)


def open_rollouts() -> dict[UUID, Rollout]:
    """The rollout in force of each workload."""
    rows = Rollout.objects.exclude(state__in=Rollout.OVER).select_related("certificate", "deployment__adapter")
    return {rollout.workload_id: rollout for rollout in rows}


def looks_at(rollout: Rollout) -> list[Look]:
    """The risk as it was known along a rollout's audits, at up to forty of them, in the order the audits were done."""
    done = Audit.objects.filter(rollout=rollout, status=Audit.Status.DONE)
    if rollout.certificate.promise == Workload.Promise.PER_CALL:
        done = done.filter(kind=Audit.Kind.SHADOW)
    else:
        done = done.filter(accepted=True)
    outcomes = list(done.order_by("done_at", "id").values_list("accepted", "differs"))
    step = max(1, len(outcomes) // MAX_LOOKS)
    looks, differing = [], 0
    for number, (accepted, differs) in enumerate(outcomes, start=1):
        differing += bool(accepted and differs)
        if number % step == 0 or number == len(outcomes):
            low, high = confidence_sequence(differing, number, rollout.certificate.delta)
            looks.append(Look(number, differing / number, low, high))
    return looks
