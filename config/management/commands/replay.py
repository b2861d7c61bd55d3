"""Replays a file of real queries and real teacher answers, and prints what a student would have given.

A script reads the exit status alone, so a broken promise is a failure there; too few rows to certify are a finding.
"""

import argparse
import time
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from config import replay
from config.local import replicas_for
from config.processes import UnableToRun
from config.replay_file import UnableToRead, read_rows
from ingestion.prices import PriceBook
from ingestion.promises import UnableToPromise, check_promise


class Command(BaseCommand):
    """`manage.py replay FILE --alpha 0.05 --delta 0.1 --student head|lora`."""

    help = __doc__
    requires_system_checks = ()  # the web process has those

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Prices are per million tokens; unset, they are the model's published ones."""
        parser.add_argument("file", type=Path)
        parser.add_argument("--alpha", type=float, default=0.05)
        parser.add_argument("--delta", type=float, default=0.1)
        parser.add_argument("--promise", choices=["per_answer", "per_call"], default="per_answer")
        parser.add_argument("--student", choices=["head", "lora"], default="head")
        parser.add_argument("--live-share", type=float, default=0.3, help="share of the rows kept for the end")
        parser.add_argument("--seed", type=int, default=0, help="of the shuffle")
        parser.add_argument("--model", default="gpt-4")
        parser.add_argument("--input-price", type=_money, default=None)
        parser.add_argument("--output-price", type=_money, default=None)
        parser.add_argument("--hourly-cost", type=_money, default=None, help="of the student's machine")
        parser.add_argument("--report", type=Path, default=None, help="where the JSON report goes")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check everything that can be checked first, then start what is needed and replay."""
        plan = _plan(options)
        started = time.monotonic()

        def tell(line: str) -> None:
            self.stdout.write(f"[{time.monotonic() - started:6.0f} s] {line}")

        try:
            with replicas_for(plan.rung, tell=tell):
                report = replay.replay(plan, tell=tell, clock=replay.utc_now)
        except (replay.UnableToReplay, UnableToRun) as error:
            raise CommandError(str(error)) from error
        where = options["report"] or settings.STATE_DIR / f"replay-{options['file'].stem}-{plan.rung}.json"
        self.conclude(report, plan, where=where)

    def conclude(self, report: dict[str, Any], plan: replay.Plan, *, where: Path) -> None:
        """Write the report and print what stands in it. Raises CommandError, after both, for a broken promise."""
        where.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
        self.stdout.write(_summary(report, plan))
        self.stdout.write(f"report: {where}")
        if report["live"] is not None and not report["live"]["promise_kept"]:
            raise CommandError("the promise is broken on calls never used before")


def _plan(options: dict[str, Any]) -> replay.Plan:
    try:
        check_promise(alpha=options["alpha"], delta=options["delta"])
        rows = read_rows(options["file"])
    except (UnableToPromise, UnableToRead) as error:
        raise CommandError(str(error)) from error
    if not 0.05 <= options["live_share"] <= 0.8:
        raise CommandError("--live-share lies between 0.05 and 0.8")
    call_command("migrate", verbosity=0)
    input_price, output_price = _prices(options)
    return replay.Plan(
        rows=rows,
        rung=options["student"],
        alpha=options["alpha"],
        delta=options["delta"],
        promise=options["promise"],
        live_share=options["live_share"],
        seed=options["seed"],
        model=options["model"],
        input_price=input_price,
        output_price=output_price,
        hourly_cost=settings.REPLICA_HOURLY_COST if options["hourly_cost"] is None else options["hourly_cost"],
    )


def _prices(options: dict[str, Any]) -> tuple[Decimal, Decimal]:
    given = options["input_price"], options["output_price"]
    if None not in given:
        return given
    now = datetime.now(UTC)
    rates = PriceBook.load(now).rates(provider="openai", model=options["model"], at=now)
    if rates is None:
        raise CommandError("no published price for this model: give --input-price and --output-price")
    return (rates.input if given[0] is None else given[0], rates.output if given[1] is None else given[1])


def _money(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError("not an amount") from error
    if not amount.is_finite() or amount < 0:
        raise argparse.ArgumentTypeError("an amount is finite and not negative")
    return amount


def _summary(report: dict[str, Any], plan: replay.Plan) -> str:
    certificate, live = report["certificate"], report["live"]
    lines = [f"student          {plan.rung}, agreement on held-out rows {report['evaluation']['student']:.3f}"]
    if live is None:
        more = certificate["more_rows_needed"]
        lines.append(f"not certified    {certificate['reason']}")
        lines.append(
            f"                 about {more} more calibration rows"
            if more
            else "                 more rows alone do not help"
        )
        return "\n".join(lines)
    low, high = live["risk_interval_95"]
    lines += [
        f"certified        threshold {certificate['threshold']:.4f}"
        f" for alpha {plan.alpha}, delta {plan.delta}, {plan.promise}",
        f"                 {certificate['differing']} of {certificate['accepted']} accepted"
        f" of {certificate['calibration_rows']} calibration rows differ, bound {certificate['upper_bound']:.4f}",
        f"coverage         {live['coverage']:.3f} of {live['calls']} calls never used before",
        f"realised risk    {live['realised_risk']:.4f}  [{low:.4f}, {high:.4f}]  "
        + ("promise kept" if live["promise_kept"] else "PROMISE BROKEN"),
        f"agreement        {1 - live['differing'] / max(live['answered'], 1):.3f} where the student answers, "
        f"{live['agreement_all']:.3f} had it answered everything",
        f"per million      {live['cost_per_million_without']} {live['currency']} without, "
        f"{live['cost_per_million_with']} {live['currency']} with",
        f"took             {report['seconds']:.0f} s",
    ]
    return "\n".join(lines)
