"""What the teacher took for calls of a workload lately: the samples from which student-answered calls are priced."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from django.db.models import Count, DecimalField, ExpressionWrapper, F, Q, Sum, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Greatest, TruncHour

from billing.core.counterfactual import Baseline, Sample, estimate_baseline
from ingestion.core.calls import Arm
from ingestion.core.rating import Rates
from ingestion.models import Call

WINDOW: Final = timedelta(days=7)  # up to the end of the hour that is priced, so that a past hour's price stands
HOUR: Final = timedelta(hours=1)
CALLERS_WORD: Final = ("override", "log_off")  # reasons of a route that the caller chose
_MILLION: Final = Decimal(1_000_000)
_NUMBER: Final = DecimalField(max_digits=38, decimal_places=10)


class Baselines:
    """The baselines of the tenant in force for hours in [start, end); each workload is read once."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._start, self._end = start, end
        self._read: dict[tuple[UUID, Rates], Mapping[datetime, tuple[Sample, Sample, Sample]]] = {}

    def find(self, *, workload_id: UUID, rates: Rates, hour: datetime) -> Baseline | None:
        """What one call of a workload costs at the teacher's in an hour, at the asked-for model's rates."""
        name = (workload_id, rates)
        if name not in self._read:
            self._read[name] = _hourly_samples(workload_id, rates, self._start - WINDOW, self._end)
        control, answered, guessed = Sample(), Sample(), Sample()
        for at, (from_control, from_metered, from_all) in self._read[name].items():
            if hour + HOUR - WINDOW <= at <= hour:
                control, answered, guessed = control + from_control, answered + from_metered, guessed + from_all
        return estimate_baseline(control=control, answered=answered, guessed=guessed)


def _hourly_samples(
    workload_id: UUID, rates: Rates, start: datetime, end: datetime
) -> Mapping[datetime, tuple[Sample, Sample, Sample]]:
    """For each hour the control arm's sample, that of all metered calls, and that of all, metered or guessed.

    All are whole and answered by the workload's own teacher, and none was sent there by its caller's own word.
    """
    whole = Q(status__lt=400, complete=True, teacher_cost__gt=0, failovers=0) & ~Q(arm=Arm.STUDENT)
    chosen = Q(reason__in=CALLERS_WORD)
    metered = Q(usage_estimated=False)
    control = metered & Q(arm=Arm.CONTROL)
    found = (
        Call.objects.filter(whole & ~chosen, workload_id=workload_id, at__gte=start, at__lt=end)
        .annotate(hour=TruncHour("at", tzinfo=UTC), millionfold=_price(rates))
        .annotate(square=ExpressionWrapper(F("millionfold") * F("millionfold"), output_field=_NUMBER))
        .values("hour")
        .annotate(
            calls=Count("id"),
            total=Sum("millionfold"),
            squares=Sum("square"),
            metered_calls=Count("id", filter=metered),
            metered_total=Sum("millionfold", filter=metered),
            metered_squares=Sum("square", filter=metered),
            control_calls=Count("id", filter=control),
            control_total=Sum("millionfold", filter=control),
            control_squares=Sum("square", filter=control),
        )
    )
    return {
        row["hour"]: (
            _sample(row["control_calls"], row["control_total"], row["control_squares"]),
            _sample(row["metered_calls"], row["metered_total"], row["metered_squares"]),
            _sample(row["calls"], row["total"], row["squares"]),
        )
        for row in found
    }


def _sample(calls: int, total: Decimal | None, squares: Decimal | None) -> Sample:
    return Sample(calls, (total or Decimal(0)) / _MILLION, (squares or Decimal(0)) / _MILLION**2)


def _price(rates: Rates) -> Combinable:
    """A call's cost times a million, as `ingestion.core.rating` reckons it; numbers, lest a product overflow."""
    fresh = Greatest(F("input_tokens") - F("cached_input_tokens") - F("cache_write_tokens"), Value(0))
    return ExpressionWrapper(
        Cast(fresh, _NUMBER) * Value(rates.input, _NUMBER)
        + Cast("cached_input_tokens", _NUMBER) * Value(rates.cached_input, _NUMBER)
        + Cast("cache_write_tokens", _NUMBER) * Value(rates.cache_write, _NUMBER)
        + Cast("output_tokens", _NUMBER) * Value(rates.output, _NUMBER),
        output_field=_NUMBER,
    )
