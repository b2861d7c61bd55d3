"""The demo's processes: the stand-in teacher and all of the product, started from outside, stopped without a trace."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 40.0
START_SECONDS = 600.0


class UnableToStart(Exception):
    """A process ended, or did not come up in time; the message names its log."""


@dataclass(frozen=True, slots=True)
class House:
    """Where everything is to be found."""

    web: str
    gateway: str
    teacher: str
    teacher_key: str = field(repr=False)
    product: subprocess.Popen[str]
    stand_in: subprocess.Popen[bytes] | None

    def stop(self) -> None:
        """Stop the product, which stops its own processes, then the teacher."""
        for process in (self.product, self.stand_in):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(timeout=STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def start(*, state: Path, pace: dict[str, str], tell: Callable[[str], None]) -> House:
    """Start everything on a fresh state directory. Raises UnableToStart."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    ports = {name: pick_port(wanted) for name, wanted in PORTS.items()}
    stand_in, teacher, teacher_key = _teacher(ports["teacher"], state)
    environ = {
        **os.environ,
        **pace,
        "DEMO": "1",
        "STATE_DIR": str(state),
        "MODELS_DIR": os.environ.get("MODELS_DIR", str(ROOT / ".state" / "models")),
        "SECRET_KEY": secrets.token_urlsafe(48),
    }
    command = [sys.executable, "manage.py", "up"]
    command += [f"--{name}-port={ports[name]}" for name in ("web", "gateway", "vllm", "encoder")]
    product = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    house = House(
        f"http://127.0.0.1:{ports['web']}",
        f"http://127.0.0.1:{ports['gateway']}",
        teacher,
        teacher_key,
        product,
        stand_in,
    )
    try:
        _follow(house, tell)
        if stand_in is not None and stand_in.poll() is not None:
            raise UnableToStart(f"the stand-in teacher ended; its log: {state / 'teacher.log'}")
    except UnableToStart:
        house.stop()
        raise
    return house


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


def _teacher(port: int, state: Path) -> tuple[subprocess.Popen[bytes] | None, str, str]:
    """The stand-in, or the real provider that the environment names."""
    real, key = os.environ.get("TEACHER_BASE_URL"), os.environ.get("TEACHER_API_KEY")
    if real and key:
        return None, real.rstrip("/").removesuffix("/v1"), key
    made_up = secrets.token_urlsafe(24)
    return start_stand_in(port=port, credential=made_up, log=state / "teacher.log"), f"http://127.0.0.1:{port}", made_up


def start_stand_in(*, port: int, credential: str, log: Path) -> subprocess.Popen[bytes]:
    """The stand-in teacher's process, which wants `credential` of its callers; it writes to `log`."""
    # One argument, not two: one secret in sixty-four begins with a dash.
    command = [sys.executable, "-m", "demo.teacher", "--port", str(port), f"--credential={credential}"]
    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def _follow(house: House, tell: Callable[[str], None]) -> None:
    """Pass on what the start says, until everything is up."""
    deadline = time.monotonic() + START_SECONDS
    said: list[str] = []
    output = house.product.stdout
    while output is not None and time.monotonic() < deadline:
        line = output.readline()
        if not line:
            raise UnableToStart("the product ended while starting: " + " | ".join(said[-5:]))
        said.append(line.strip())
        tell(line.strip())
        if "everything is up" in line:
            return
    raise UnableToStart("the product did not come up in time")
