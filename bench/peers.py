"""Our gateway and others side by side, in one run: `make bench-gateway`, some minutes, loopback only.

The others come from their registries, pinned, each into an environment of its own below `.state/bench`, and start with
the least that makes them forward: LiteLLM with a master key, Portkey with a provider by header (it has no keys of its
own), the Rust router with a list of workers (it has none either). None of them keeps what passes. Ours checks a key,
seals both bodies and has each record with the operating system before an answer's last byte.

All gateways share one core, and all but the one that is measured are idle; the instant upstream and the load share the
other, or have one each. Rounds alternate between gateways, so that a machine's mood is shared; the table has medians,
the ratios are of medians.
"""

import argparse
import os
import subprocess
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.gateway import ROOT, gateway, upstream
from bench.load import CHUNKS, HEADINGS, UPSTREAM, Measured, Target, measure, wait_until_ready

HOME = ROOT / ".state" / "bench"
LITELLM = "1.106.12"
PORTKEY = "1.15.2"
HONO = "1.3.3"  # later ones break Portkey's streams
ROUTER = "0.1.17"
MASTER_KEY = "sk-for-measurements-only"
ADDRESS = f"http://127.0.0.1:{UPSTREAM}"
START_SECONDS = 120.0

Opener = Callable[[int], AbstractContextManager[Target]]


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of load."""

    name: str
    connections: int
    stream: bool


LOADS = (
    Load("whole answers, 64 connections", 64, False),
    Load(f"streams of {CHUNKS}, 64 connections", 64, True),
    Load("whole answers, 1 connection", 1, False),
    Load(f"streams of {CHUNKS}, 1 connection", 1, True),
)


@contextmanager
def direct(core: int) -> Iterator[Target]:
    """No gateway: what the load itself takes."""
    yield Target("no gateway", UPSTREAM, os.getpid(), {})


@contextmanager
def litellm(core: int) -> Iterator[Target]:
    """LiteLLM's proxy, one worker."""
    home = HOME / "litellm"
    _install_python(home, f"litellm[proxy]=={LITELLM}")
    (home / "config.yaml").write_text(
        "model_list:\n"
        "  - model_name: gpt-4o\n"
        f"    litellm_params: {{model: openai/gpt-4o, api_base: {ADDRESS}/v1, api_key: x}}\n"
        f"general_settings: {{master_key: {MASTER_KEY}}}\n"
        "litellm_settings: {telemetry: false}\n"
    )
    command = [str(home / "bin" / "litellm"), "--config", str(home / "config.yaml"), "--port", "18904"]
    headers = {"authorization": f"Bearer {MASTER_KEY}"}
    with _started(
        f"LiteLLM {LITELLM}", command, core=core, port=18904, path="/health/liveliness", headers=headers
    ) as one:
        yield one


@contextmanager
def portkey(core: int) -> Iterator[Target]:
    """Portkey's gateway."""
    home = HOME / "portkey"
    home.mkdir(parents=True, exist_ok=True)
    (home / "package.json").write_text(
        f'{{"private": true, "dependencies": {{"@portkey-ai/gateway": "{PORTKEY}"}},'
        f' "overrides": {{"@hono/node-server": "{HONO}"}}}}'
    )
    if not (home / "node_modules").exists():
        _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=home)
    server = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(server), "--port=18905", "--headless"]
    headers = {"authorization": "Bearer x", "x-portkey-provider": "openai", "x-portkey-custom-host": f"{ADDRESS}/v1"}
    with _started(f"Portkey {PORTKEY}", command, core=core, port=18905, path="/", headers=headers) as one:
        yield one


@contextmanager
def router(core: int) -> Iterator[Target]:
    """vLLM's router, in Rust: the next mark, without a key check or capture."""
    home = HOME / "router"
    _install_python(home, f"vllm-router=={ROUTER}")
    command = [
        str(home / "bin" / "vllm-router"),
        "--worker-urls",
        ADDRESS,
        "--port",
        "18906",
        "--policy",
        "round_robin",
    ]
    command += ["--prometheus-port", "18907", "--log-level", "error"]
    with _started(f"vllm-router {ROUTER}", command, core=core, port=18906, path="/liveness", headers={}) as one:
        yield one


@contextmanager
def _started(
    name: str, command: Sequence[str], *, core: int, port: int, path: str, headers: dict[str, str]
) -> Iterator[Target]:
    environ = {**os.environ, "TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    with (HOME / f"{port}.log").open("wb") as log:
        pinned = ["taskset", "-c", str(core), *command]
        process = subprocess.Popen(pinned, env=environ, stdout=log, stderr=log, cwd=HOME)
    try:
        target = Target(name, port, process.pid, headers)
        wait_until_ready(target, process, path=path, patience=START_SECONDS)
        yield target
    finally:
        process.terminate()
        process.wait(20)


def _install_python(home: Path, requirement: str) -> None:
    if (home / "installed").exists():
        return
    venv.create(home, with_pip=True)
    _run(str(home / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", requirement)
    (home / "installed").touch()


def _run(*command: str, cwd: Path | None = None) -> None:
    print("installing:", command[-1], flush=True)
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


OTHERS: dict[str, Opener] = {
    "litellm": litellm,
    "portkey": portkey,
    "router": router,
}


@contextmanager
def awake(cores: Sequence[int]) -> Iterator[None]:
    """Keep the cores from sleeping between two calls, by work that yields to any other."""
    spin = ["chrt", "-i", "0", "python3", "-c", "while True: pass"]
    spinning = [subprocess.Popen(["taskset", "-c", str(core), *spin]) for core in cores]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait(10)


def compare(targets: Sequence[Target], load: Load, *, rounds: int, seconds: float) -> list[Measured]:
    """Each target's medians, in order; targets take turns."""
    found: dict[str, list[Measured]] = {target.name: [] for target in targets}
    for _ in range(rounds):
        for target in targets:
            row = measure(target, connections=load.connections, stream=load.stream, seconds=seconds)
            found[target.name].append(row)
    return [_median(rows) for rows in found.values()]


def _median(rows: Sequence[Measured]) -> Measured:
    middle = sorted(rows, key=lambda row: row.rate)[len(rows) // 2]
    cost, p50, p99 = (median(getattr(row, name) for row in rows) for name in ("cost", "p50", "p99"))
    return Measured(middle.name, middle.calls, middle.seconds, cost * middle.calls / 1e6, p50, p99)


def show(load: Load, rows: Sequence[Measured]) -> None:
    """Print one load's table, and ours over each of the others."""
    print(f"\n{load.name}\n{HEADINGS}")
    for row in rows:
        print(row.line())
    none, ours, *others = rows
    ratios = ", ".join(f"{ours.rate / other.rate:.1f} x {other.name}" for other in others)
    added = f"{ours.p50 - none.p50:.2f} ms to the p50, {ours.p99 - none.p99:.2f} ms to the p99"
    print(f"ours: {ratios}; it adds {added}", flush=True)


def main() -> None:
    """Set up, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="litellm,portkey,router", help="which of the others")
    options.add_argument("--tree", type=Path, default=ROOT, help="whose gateway is ours: a compiled copy, say")
    chosen = options.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    others = [OTHERS[name] for name in chosen.only.split(",") if name]
    with ExitStack() as stack:
        stack.enter_context(upstream(cores[-1]))
        ours: Opener = partial(gateway, tree=chosen.tree.resolve())
        targets = [stack.enter_context(opened(cores[0])) for opened in (direct, ours, *others)]
        for load in LOADS:
            with awake(cores) if load.connections == 1 else ExitStack():
                show(load, compare(targets, load, rounds=chosen.rounds, seconds=chosen.seconds))


if __name__ == "__main__":
    main()
