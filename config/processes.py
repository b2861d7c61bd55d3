"""The processes of one machine: what each is started with, when it is ready, and that none outlives its starter."""

import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config.paths import ROOT

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 20.0
TELL_SECONDS = 5.0  # between two words on a process that is slow to start


class UnableToRun(Exception):
    """A process ended before it was ready, or was not ready in time; the message names its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """One process: `ready` is a URL that answers 200 once it can be used; None where running is enough."""

    name: str
    argv: Sequence[str]
    ready: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60.0


@dataclass(frozen=True)
class Ports:
    """Where the processes of this machine listen, all on loopback."""

    web: int = 8780
    gateway: int = 8787
    vllm: int = 8790
    encoder: int = 8791


def web(ports: Ports) -> Program:
    """Portal, API and admin."""
    argv = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{ports.web}", "--threads", "4"]
    return Program("web", [*argv, "--log-level", "warning"], f"http://127.0.0.1:{ports.web}/healthz")


def gateway(ports: Ports) -> Program:
    """The path of every call. Ready once it has a snapshot."""
    return Program(
        "gateway",
        [sys.executable, "-m", "serving.gateway"],
        f"http://127.0.0.1:{ports.gateway}/healthz",
        {"GATEWAY_PORT": str(ports.gateway)},
    )


def feed() -> Program:
    """Spool into the database, rows into the snapshot."""
    return Program("feed", [sys.executable, "manage.py", "feed"])


def worker(*, queues: Sequence[str], name: str, at_once: int) -> Program:
    """A Celery worker for some queues; it takes from them in turn."""
    argv = [sys.executable, "-m", "celery", "-A", "config.celery", "worker", "-Q", ",".join(queues), "-n", f"{name}@%h"]
    return Program(name, [*argv, "-c", str(at_once), "--without-gossip", "--without-mingle"])


def beat(state: Path) -> Program:
    """The one clock that makes every stage look at the one below."""
    argv = [sys.executable, "-m", "celery", "-A", "config.celery", "beat"]
    return Program("beat", [*argv, "-s", str(state / "beat"), "--pidfile", ""])


def encoder(ports: Ports, *, model: str, cache: Path) -> Program:
    """Head students, neighbours and novelty."""
    argv = [sys.executable, "-m", "serving.encoder", "--port", str(ports.encoder), "--model", model]
    environ = {"ARTIFACTS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return Program("encoder", argv, f"http://127.0.0.1:{ports.encoder}/readyz", environ, seconds=120)


def vllm(ports: Ports, *, base_model: str, served_name: str, rank: int) -> Program:
    """The shared multi-LoRA engine, on loopback: its own key check leaves routes open."""
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", base_model]
    argv += ["--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(ports.vllm)]
    argv += ["--enable-lora", "--max-loras", "4", "--max-cpu-loras", "16", "--max-lora-rank", str(rank)]
    argv += ["--max-model-len", "1024", "--dtype", quickest_dtype(), "--enforce-eager", "--max-num-seqs", "16"]
    argv += ["--disable-uvicorn-access-log", "--no-enable-log-requests"]
    argv += ["--worker-extension-cls", "serving.engine.worker.GroupedLoraWorker"]  # its own kernels are for GPUs
    environ = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return Program("vllm", argv, f"http://127.0.0.1:{ports.vllm}/health", environ, seconds=300)


def quickest_dtype(flags: Path = Path("/proc/cpuinfo")) -> str:
    """bfloat16 where the processor multiplies it itself, else float32: emulated it is about three times slower."""
    try:
        known = flags.read_text()
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in known or "amx_bf16" in known else "float32"


class Household:
    """Processes that were started together and stop together, newest first."""

    def __init__(self, *, environ: Mapping[str, str], logs: Path) -> None:
        self._environ = dict(environ)
        self.logs = logs
        self._running: list[tuple[Program, subprocess.Popen[bytes]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, program: Program) -> None:
        """Start a process in a group of its own, tied to this one's life; its output goes to a log."""
        with (self.logs / f"{program.name}.log").open("ab") as log:
            self._running.append((program, _spawn(program, {**self._environ, **program.environ}, log)))

    def wait_ready(self, name: str, *, tell: Callable[[str], None] = lambda _: None) -> None:
        """Wait until a started process can be used. Raises UnableToRun."""
        program, process = next(one for one in self._running if one[0].name == name)
        started, told = time.monotonic(), 0.0
        while not _is_ready(program):
            waited = time.monotonic() - started
            if process.poll() is not None or waited > program.seconds:
                why = "ended" if process.poll() is not None else f"is not ready after {waited:.0f} s"
                raise UnableToRun(f"{name} {why}: see {self.logs / name}.log")
            if waited >= told + TELL_SECONDS:
                told = waited
                tell(f"{name} is starting ({waited:.0f} s)")
            time.sleep(0.25)

    def tell(self, **environ: str) -> None:
        """Have processes started from now on know these settings too."""
        self._environ.update(environ)

    def kill(self, name: str) -> None:
        """kill -9 a process with all of its group, as a machine that fails would."""
        entry = next(one for one in self._running if one[0].name == name)
        _signal_group(entry[1], signal.SIGKILL)
        entry[1].wait()
        self._running.remove(entry)

    def ended(self) -> list[str]:
        """Names of processes that ended by themselves."""
        return [program.name for program, process in self._running if process.poll() is not None]

    def stop(self) -> None:
        """Stop all, newest first, and leave nothing behind."""
        for _, process in reversed(self._running):
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for _, process in reversed(self._running):
            try:
                process.wait(timeout=max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                pass
        for _, process in self._running:  # also children whose parent ended without them
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._running.clear()


def _spawn(program: Program, environ: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        program.argv,
        cwd=ROOT,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_ready(program: Program) -> bool:
    if program.ready is None:
        return True
    try:
        with urllib.request.urlopen(program.ready, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
