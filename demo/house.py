"""The demo's processes: the stand-in teacher and all of the product, started from outside, stopped without a trace."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from demo.provider import Provider, real_provider

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 40.0
START_SECONDS = 600.0


class UnableToStart(Exception):
    """A process ended, or did not come up in time; the message names its log."""


@dataclass(slots=True)
class Started:
    """The processes that run so far."""

    processes: list[subprocess.Popen[Any]] = field(default_factory=list)
    _starting: bool = False
    _interrupted: bool = False

    def launch(self, start: Callable[[], subprocess.Popen[Any]]) -> None:
        """Start one more. Raises KeyboardInterrupt, once it is known, where `interrupt` was called meanwhile."""
        self._starting = True
        try:
            self.processes.append(start())
        finally:
            self._starting = False
        if self._interrupted:
            raise KeyboardInterrupt

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt, now or as soon as no process is half started."""
        self._interrupted = True
        if not self._starting:
            raise KeyboardInterrupt

    def stop(self) -> None:
        """Ask all to end, newest first (the product stops its own processes), and see to it that they do."""
        running = [process for process in reversed(self.processes) if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class House:
    """Where everything is to be found."""

    web: str
    gateway: str
    teacher: Provider
    product: subprocess.Popen[str]


def start(started: Started, *, state: Path, pace: dict[str, str], tell: Callable[[str], None]) -> House:
    """Start everything on a fresh state directory; what runs is in `started` at once, so that it can be stopped at any
    moment. Raises UnableToStart, UnableToUse.
    """
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    ports = {name: pick_port(wanted) for name, wanted in PORTS.items()}
    teacher = real_provider(os.environ) or _stand_in(started, ports["teacher"], state)
    product = _start_product(started, ports, state, pace)
    house = House(f"http://127.0.0.1:{ports['web']}", f"http://127.0.0.1:{ports['gateway']}", teacher, product)
    _follow(product, tell)
    for process in started.processes:
        if process.poll() is not None:
            raise UnableToStart(f"the stand-in teacher ended; its log: {state / 'teacher.log'}")
    return house


def _start_product(
    started: Started, ports: Mapping[str, int], state: Path, pace: dict[str, str]
) -> subprocess.Popen[str]:
    environ = {
        **os.environ,
        **pace,
        "DEMO": "1",
        "STATE_DIR": str(state),
        "MODELS_DIR": os.environ.get("MODELS_DIR", str(ROOT / ".state" / "models")),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "PYTHONWARNINGS": "ignore:XDG_RUNTIME_DIR is not set",  # a bare machine has none, and nobody needs it
    }
    command = [sys.executable, "manage.py", "up"]
    command += [f"--{name}-port={ports[name]}" for name in ("web", "gateway", "vllm", "encoder")]
    start = partial(
        subprocess.Popen,
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.launch(start)
    return started.processes[-1]


PORTS = {"web": 8780, "gateway": 8787, "vllm": 8790, "encoder": 8791, "teacher": 8799}


def pick_port(wanted: int) -> int:
    """The wanted port of this machine if nobody has it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise UnableToStart("no free port on this machine")


def _stand_in(started: Started, port: int, state: Path) -> Provider:
    made_up = secrets.token_urlsafe(24)
    started.launch(partial(start_stand_in, port=port, credential=made_up, log=state / "teacher.log"))
    return Provider(f"http://127.0.0.1:{port}", made_up)


def start_stand_in(*, port: int, credential: str, log: Path) -> subprocess.Popen[bytes]:
    """The stand-in teacher's process, which wants `credential` of its callers; it writes to `log`."""
    # One argument, not two: one secret in sixty-four begins with a dash.
    command = [sys.executable, "-m", "demo.teacher", "--port", str(port), f"--credential={credential}"]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def _follow(product: subprocess.Popen[str], tell: Callable[[str], None]) -> None:
    """Pass on what the start says, until everything is up."""
    deadline = time.monotonic() + START_SECONDS
    said: list[str] = []
    output = product.stdout
    while output is not None and time.monotonic() < deadline:
        line = output.readline()
        if not line:
            raise UnableToStart("the product ended while starting: " + " | ".join(said[-5:]))
        said.append(line.strip())
        tell(line.strip())
        if "everything is up" in line:
            return
    raise UnableToStart("the product did not come up in time")
