"""The demo's story, told by really doing it: a company signs up, its traffic teaches a student, and the student serves.

Everything is seen from outside: forms of the portal, the API by key, the gateway by the official SDKs.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, TypeVar

from demo.customer import Customer
from demo.house import House
from demo.screen import Screen
from demo.traffic import Outcome, Plan, send
from serving.core.certify import clopper_pearson_interval
from serving.core.ramp import AUDITS_PER_STEP

Found = TypeVar("Found")
ALL = ("routing", "exceptions", "clauses", "invoices")
LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 1800.0
AT_FULL = 10.0  # calls of a burst that go to a student which needs no more audits
MEASURED_ODD = 0.06  # of the counted traffic: enough to see what becomes of such calls
BESIDE = 0.04  # of live traffic, for each workload that has no student
SPARE = 1.1  # a few calls are odd, or get no audit
LEAST_COVERAGE = 0.25


class StoryBroke(Exception):
    """A stage did not come to its end; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much traffic the story takes. `learnt` are the workloads that get enough calls for a student."""

    learnt: tuple[str, ...] = ("routing",)
    teaching: int = 840  # calls of each learnt workload
    beside: int = 260  # calls of each other one: seen, judged, and told how many more are needed
    burst: int = 125  # calls between two looks at the rollouts, at most
    measured: int = 240
    concurrency: int = 12


@dataclass(slots=True)
class Account:
    """What the end of the story prints."""

    arms: Counter[str] = field(default_factory=Counter)
    eligible: int = 0  # ordinary calls of workloads with a student
    covered: int = 0  # of these, answered by the student
    odd: int = 0  # out of distribution, or oversized
    odd_by_student: int = 0
    audits: int = 0
    differing: int = 0
    statement: dict[str, Any] = field(default_factory=dict)
    balanced: bool = False
    logged: int = 0
    logged_by_student: int = 0


async def sign_up(customer: Customer, house: House, screen: Screen) -> None:
    """Company, automatic approval, provider credentials with the stance on their terms, and a key."""
    screen.step("Northwind Freight signs up through the portal")
    await customer.sign_up(company="Northwind Freight", email="ops@northwind.example", password="pallets-and-cranes-42")
    await customer.submit(
        "/settings/preferences", form="/settings", name="Northwind Freight", approval="automatic", log_content="on"
    )
    for provider in house.teacher.dialects:
        await customer.submit(
            "/settings/credentials",
            form="/settings",
            provider=provider,
            base_url=house.teacher.base_url,
            secret=house.teacher.key,
            stance="internal_only",
        )
    await customer.make_key("production")
    screen.note(f"API key made; one base URL to change: {house.gateway}/v1")

    async def known() -> bool | None:
        screen.show("the gateway learns the key")
        return await _gateway_knows(customer, house)

    await _until(known, screen, "the gateway learns the key")


async def teach(customer: Customer, house: House, scale: Scale, screen: Screen) -> None:
    """The company's traffic, all answered by the teacher, all logged."""
    screen.step("Traffic through the gateway, by the openai and anthropic SDKs; the teacher answers, the log remembers")
    weights = {name: float(scale.teaching if name in scale.learnt else scale.beside) for name in ALL}
    total, done = int(sum(weights.values())), Counter[str]()

    def heard(outcome: Outcome) -> None:
        done[outcome.error or "answered"] += 1
        screen.show(f"{sum(done.values())} of {total} calls", done=sum(done.values()) / total)

    await send(_plan(customer, house, scale, weights, total, seed=0), on_call=heard)
    if done["answered"] < 0.99 * total:
        raise StoryBroke(f"only {done['answered']} of {total} calls were answered: {dict(done)}")


async def discover(customer: Customer, scale: Scale, screen: Screen) -> dict[str, dict[str, Any]]:
    """Workloads found without anybody naming them; gives those that are to learn, by id."""
    screen.step("Workloads are discovered in the log")

    async def found() -> list[dict[str, Any]] | None:
        rows = await customer.read_all("workloads")
        ready = sum(row["verdict"] == "suitable" for row in rows)
        screen.show(f"{len(rows)} of {len(ALL)} found, {ready} suitable")
        return rows if len(rows) >= len(ALL) and ready >= len(scale.learnt) else None

    rows = await _until(found, screen, "workloads are looked for")
    for row in rows:
        screen.note(
            f"  “{row['name']}”: {row['kind']}, {row['figures'].get('pairs', 0)} calls, {row['verdict']}. "
            + " ".join(row["verdict_reasons"])
        )
    return {row["id"]: row for row in rows if row["verdict"] == "suitable"}


async def learn(customer: Customer, workloads: dict[str, dict[str, Any]], screen: Screen) -> dict[str, dict[str, Any]]:
    """Curated, trained, deployed, evaluated, certified: until every learning workload has a rollout, or was told why it
    stays with the teacher. Gives those with a rollout; raises StoryBroke if there is none.
    """
    screen.step("Pairs are curated, a LoRA is trained, loaded into the running vLLM, evaluated there and certified")
    said: set[str] = set()

    async def judged() -> set[str] | None:
        await _say_datasets(customer, said, screen)
        rollouts = {row["workload_id"] for row in await customer.read_all("rollouts")}
        await _show_learning(customer, screen)
        certificates = await customer.read_all("certificates")
        for certificate in certificates:
            _say_certificate(certificate, said, screen)
        refused = sum(not certificate["certified"] for certificate in certificates)
        return rollouts if len(rollouts) + refused >= len(workloads) else None

    taken = await _until(judged, screen, "the student learns", patience=PATIENCE_SECONDS * max(len(workloads), 1))
    if not taken:
        raise StoryBroke("no student was certified")
    return {key: row for key, row in workloads.items() if key in taken}


async def roll_out(
    customer: Customer, house: House, workloads: dict[str, dict[str, Any]], scale: Scale, screen: Screen
) -> None:
    """Live traffic while the rollout goes shadow → canary → ramp → full on its own audits."""
    screen.step("Live traffic; the rollout takes a step for every 100 new audits")
    seed, states, ids = 2, dict[str, str](), dict[str, str]()
    deadline = time.monotonic() + PATIENCE_SECONDS * len(workloads)
    while time.monotonic() < deadline:
        rollouts = [await customer.read(f"rollouts/{row['id']}") for row in await customer.read_all("rollouts")]
        _say_rollouts(rollouts, workloads, states, screen)
        if all(row["state"] == "full" for row in rollouts):
            return
        weights = _weigh(rollouts, ids)
        calls = min(scale.burst, round(sum(weights.values()))) if weights else scale.burst
        live = _mix(scale, weights or dict.fromkeys(scale.learnt, 1.0))
        await send(_plan(customer, house, scale, live, calls, seed=seed), on_call=_counter(calls, ids, screen))
        seed = 2 + (seed - 1) % 12
        await _digest(customer, screen)
    raise StoryBroke("the rollout did not reach full share in time")


async def measure(customer: Customer, house: House, scale: Scale, screen: Screen) -> Account:
    """The traffic that is counted: none of its queries was ever seen before."""
    screen.step("The student serves; odd and oversized calls go to the teacher")
    account = Account()

    def heard(outcome: Outcome) -> None:
        account.arms[outcome.arm or outcome.error or "none"] += 1
        _count(account, outcome, scale)
        screen.show(f"{dict(account.arms)}", done=sum(account.arms.values()) / scale.measured)

    weights = _mix(scale, dict.fromkeys(scale.learnt, 1.0))
    plan = replace(_plan(customer, house, scale, weights, scale.measured, seed=15), odd_share=MEASURED_ODD)
    await send(plan, on_call=heard)
    return account


async def settle(customer: Customer, account: Account, screen: Screen) -> None:
    """Wait until audits and ledger have caught up, then hold the statement against the calls it is about."""
    screen.step("Audits and ledger catch up")
    last = Counter[str]()

    async def settled() -> bool | None:
        rollouts = [await customer.read(f"rollouts/{row['id']}") for row in await customer.read_all("rollouts")]
        account.audits = sum(row["audits"]["accepted"] for row in rollouts)
        account.differing = sum(row["audits"]["differing"] for row in rollouts)
        calls = await customer.read_all("calls")
        statements = await customer.read_all("statements")
        account.logged = len(calls)
        account.statement = statements[0] if statements else {}
        account.logged_by_student = sum(call["arm"] == "student" for call in calls)
        account.balanced = bool(statements) and _balances(account.statement, calls, await customer.read_all("runs"))
        now = Counter({"audits": account.audits, "calls": len(calls)})
        screen.show(
            f"{account.audits} audits, {len(calls)} calls logged, "
            + ("the statement is even" if account.balanced else "the statement is catching up")
        )
        quiet, last["quiet"] = now["audits"] == last["audits"] and now["calls"] == last["calls"], 0
        last.update({name: now[name] - last[name] for name in now})
        return True if account.balanced and quiet else None

    await _until(settled, screen, "the books are closed", look=4.0, patience=300.0)


def tell_end(account: Account, house: House, screen: Screen) -> None:
    """The figures, as they are on the portal's pages too."""
    low, high = clopper_pearson_interval(account.audits - account.differing, account.audits)
    statement = account.statement
    agreement = 1 - account.differing / account.audits if account.audits else 0.0
    money = statement["currency"]
    served = account.logged_by_student / max(account.logged, 1)
    lines = [
        f"calls logged        {account.logged}, {served:.1%} answered by the student",
        f"coverage            {account.covered / max(account.eligible, 1):.3f} of {account.eligible} ordinary calls "
        "of what was learnt, all new",
        f"odd and oversized   {account.odd} calls, {account.odd_by_student} of them answered by the student",
        f"arms                {dict(account.arms)}",
        f"measured agreement  {agreement:.4f}  95 % interval [{low:.4f}, {high:.4f}], {account.audits} audits",
        f"teacher would cost  {_round(statement['counterfactual'])} {money}",
        f"it did cost         {_round(_spent(statement))} {money} with audits, training and serving",
        f"saving              {_round(statement['saving'])} {money}"
        f"  [{_round(statement['saving_low'])}, {_round(statement['saving_high'])}]",
        f"statement           {statement['number']}, "
        + ("balances with the calls" if account.balanced else "DOES NOT BALANCE"),
        f"portal              {house.web}/  (log in with one click)",
        f"API                 {house.web}/api/docs    gateway {house.gateway}/v1",
    ]
    screen.note("")
    for line in lines:
        screen.note(line)


def held(account: Account) -> bool:
    """Whether a student really served and the books balance."""
    return account.covered > 0 and account.balanced


def _plan(
    customer: Customer, house: House, scale: Scale, weights: Mapping[str, float], calls: int, *, seed: int
) -> Plan:
    return Plan(
        base_url=house.gateway,
        key=customer.key,
        calls=calls,
        concurrency=scale.concurrency,
        seed=seed,
        workloads=tuple(weights),
        weights=weights,
        dialects=house.teacher.dialects,
        model=house.teacher.model,
        sdk_share=1.0,
    )


def _mix(scale: Scale, learnt: Mapping[str, float]) -> dict[str, float]:
    """Live traffic: the workloads with a student by their weights, and some calls of each other one."""
    others = [name for name in ALL if name not in scale.learnt]
    return {**learnt, **dict.fromkeys(others, BESIDE * sum(learnt.values()))}


def _count(account: Account, outcome: Outcome, scale: Scale) -> None:
    by_student = outcome.arm == "student"
    if outcome.odd:
        account.odd += 1
        account.odd_by_student += by_student
    elif outcome.workload in scale.learnt:
        account.eligible += 1
        account.covered += by_student


async def _gateway_knows(customer: Customer, house: House) -> bool | None:
    headers = {"authorization": f"Bearer {customer.key}"}
    async with customer.http.get(f"{house.gateway}/v1/models", headers=headers) as response:
        return True if response.status == 200 else None


async def _until(
    look_for: Callable[[], Awaitable[Found | None]],
    screen: Screen,
    what: str,
    *,
    look: float = LOOK_SECONDS,
    patience: float = 300.0,
) -> Found:
    deadline = time.monotonic() + patience
    while (found := await look_for()) is None:
        if time.monotonic() > deadline:
            raise StoryBroke(f"{what}: not within {patience:.0f} s")
        await asyncio.sleep(look)
    return found


async def _say_datasets(customer: Customer, said: set[str], screen: Screen) -> None:
    for dataset in await customer.read_all("datasets"):
        if dataset["id"] not in said:
            said.add(dataset["id"])
            left_out = ", ".join(f"{count} {reason}" for reason, count in dataset["left_out"].items()) or "nothing"
            screen.note(f"  dataset v{dataset['version']} frozen: {dataset['counts']}; left out: {left_out}")


async def _show_learning(customer: Customer, screen: Screen) -> None:
    runs = await customer.read_all("runs")
    for run in runs:
        if run["status"] in {"failed", "cancelled"}:
            raise StoryBroke(f"training {run['status']}: {run['error']}")
    trained = f"{sum(run['status'] == 'succeeded' for run in runs)} of {len(runs)} trained"
    evaluations = await customer.read_all("evaluations")
    asking = [one["progress"] for one in evaluations if one["status"] == "running" and one["progress"]]
    training = [run["progress"] for run in runs if run["status"] == "running" and (run["progress"] or {}).get("steps")]
    if asking:
        asked, questions = asking[0]["asked"], asking[0]["questions"]
        screen.show(f"{trained}; {asked} of {questions} unseen questions asked of it", done=asked / questions)
    elif training:
        step, steps = training[0]["step"], training[0]["steps"]
        screen.show(f"{trained}; step {step} of {steps}, loss {training[0]['loss']:.3f}", done=step / steps)
    else:
        waits = any(run["status"] in {"queued", "running"} for run in runs)
        screen.show(f"{trained}; {'a trainer starts' if waits else 'the replica loads what was trained'}")


def _say_certificate(certificate: dict[str, Any], said: set[str], screen: Screen) -> None:
    if certificate["id"] in said:
        return
    said.add(certificate["id"])
    if not certificate["certified"]:
        screen.note(
            f"  not certified, stays with the teacher: {certificate['reason']} "
            f"({certificate['more_rows_needed']} more rows are needed)"
        )
    else:
        screen.note(
            f"  certified: at most {certificate['alpha']:.0%} of its answers differ, with "
            f"{1 - certificate['delta']:.0%} confidence; coverage {certificate['coverage']:.2f} on "
            f"{certificate['calibration_rows']} unseen rows"
        )


def _say_rollouts(
    rollouts: list[dict[str, Any]], workloads: dict[str, dict[str, Any]], states: dict[str, str], screen: Screen
) -> None:
    for row in rollouts:
        name = workloads.get(row["workload_id"], {}).get("name", "workload")
        stands = f"{row['state']} at {row['share']:.0%}"
        audits = row["audits"]
        if row["state"] == "rolled_back":
            raise StoryBroke(f"“{name}” was rolled back: {row['reason']}")
        if states.get(row["id"]) != stands:
            states[row["id"]] = stands
            screen.note(f"  “{name}”: {stands}, {audits['differing']} of {audits['accepted']} audits differ")
        screen.show(
            f"“{name}”: {stands}, {audits['step_accepted']} audits at this step", done=audits["step_accepted"] / 100
        )


def _weigh(rollouts: list[dict[str, Any]], ids: dict[str, str]) -> dict[str, float]:
    """How many calls each workload needs for its rollout's next step; one that is at full still has some.

    Empty until the answers have said which workload is which.
    """
    wanted = {row["workload_id"]: _calls_to_step(row) for row in rollouts}
    named = {name: wanted[workload_id] for name, workload_id in ids.items() if workload_id in wanted}
    return named if len(named) == len(wanted) else {}


def _calls_to_step(rollout: dict[str, Any]) -> float:
    if rollout["state"] == "full":
        return AT_FULL
    audits = rollout["audits"]
    missing = max(AUDITS_PER_STEP - audits["step_accepted"], 1)
    return float(SPARE * missing / max(audits["coverage"], LEAST_COVERAGE)) + AT_FULL


def _counter(total: int, ids: dict[str, str], screen: Screen) -> Callable[[Outcome], None]:
    """Shows how far a batch of calls is and who answers it, and learns each workload's id."""
    arms = Counter[str]()

    def heard(outcome: Outcome) -> None:
        if outcome.workload_id:
            ids[outcome.workload] = outcome.workload_id
        arms[outcome.arm or outcome.error or "none"] += 1
        screen.show(f"{dict(arms)}", done=sum(arms.values()) / total)

    return heard


async def _digest(customer: Customer, screen: Screen) -> None:
    """Let the audits of the last burst be done: they decide, and more traffic would only make them wait longer."""
    still = 0
    while still < 4:
        rollouts = [await customer.read(f"rollouts/{row['id']}") for row in await customer.read_all("rollouts")]
        audits = [row["audits"] for row in rollouts]
        still = 0 if sum(one["waiting"] for one in audits) else still + 1
        done = min(one["step_accepted"] for one in audits)
        screen.show(
            f"{done} audits at this step, {sum(one['waiting'] for one in audits)} at work", done=done / AUDITS_PER_STEP
        )
        await asyncio.sleep(LOOK_SECONDS)


def _balances(statement: dict[str, Any], calls: list[dict[str, Any]], runs: list[dict[str, Any]]) -> bool:
    """To the cent, and call for call: what calls and runs say they cost, and what is left of what they would have."""
    taught = sum((Decimal(call["teacher_cost"] or 0) for call in calls), Decimal(0))
    trained = sum((Decimal(run["cost"] or 0) for run in runs), Decimal(0))
    pairs = (
        (Decimal(statement["teacher_cost"]), taught),
        (Decimal(statement["training_cost"]), trained),
        (Decimal(statement["saving"]), Decimal(statement["counterfactual"]) - _spent(statement)),
    )
    return statement["calls"] == len(calls) and all(abs(one - other) < Decimal("0.01") for one, other in pairs)


def _spent(statement: dict[str, Any]) -> Decimal:
    parts = ("teacher_cost", "audit_cost", "training_cost", "serving_cost")
    return sum((Decimal(statement[part]) for part in parts), Decimal(0))


def _round(amount: object) -> Decimal:
    return Decimal(str(amount)).quantize(Decimal("0.0001"))
