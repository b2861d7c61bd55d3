"""Runs the trainer process and listens to it: the only place where training touches the operating system."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec
from django.conf import settings

BAD_INPUT = 2  # how a trainer exits whose spec, data or base is no good
STOP_SECONDS = 30  # what a trainer may take to write its checkpoint
PASSED_ON = (
    *("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME"),
)


class UnableToTrain(Exception):
    """The trainer ended badly; the message is its own last error, which holds no row of data.

    `permanent` where it said itself what is wrong; otherwise it was killed or broke, and may do better another time.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message[:300])
        self.permanent = permanent


class TrainingStopped(Exception):
    """The trainer was told to stop and did."""


def run_trainer(spec: Path, *, every: float, on_beat: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Train to the end; gives the trainer's closing metrics.

    `on_beat(latest progress)` is called every `every` seconds; once it says False the trainer is asked to stop. The
    trainer dies with the calling thread. Raises UnableToTrain and TrainingStopped.
    """
    process = _start(spec)
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    try:
        closing = _listen(lines, every=every, on_beat=on_beat)
    finally:
        _end(process)
    if closing is None:
        raise TrainingStopped
    if process.returncode != 0 or closing.get("event") != "done":
        reason = str(closing.get("message") or _how_it_ended(process.returncode))
        raise UnableToTrain(reason, permanent=process.returncode == BAD_INPUT)
    return closing


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the trainer was killed, most likely for want of memory"
    return f"the trainer ended on signal {-code}" if code < 0 else f"the trainer exited with {code}"


def _start(spec: Path) -> subprocess.Popen[bytes]:
    """No secret of this process's environment is handed to the trainer."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "training.lora.train", str(spec)],
        stdout=subprocess.PIPE,
        cwd=settings.ROOT_DIR,
        env={
            **environment,
            "PYTHONPATH": str(settings.ROOT_DIR),
            "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        },
    )


def _listen(
    lines: "queue.Queue[bytes | None]", *, every: float, on_beat: Callable[[dict[str, Any]], bool]
) -> dict[str, Any] | None:
    """Read events until the trainer closes its output; None once the beat says stop."""
    latest: dict[str, Any] = {}
    while True:
        try:
            line = lines.get(timeout=every)
        except queue.Empty:
            line = b""
        if line is None:
            return latest
        if line:
            latest = _event(line) or latest
            if not lines.empty():
                continue  # catch up first: only the newest progress matters
        if latest.get("event") != "done" and not on_beat(latest):
            return None


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None  # a library's own line
    return event if isinstance(event, dict) else None


def _read(stream: IO[bytes] | None, lines: "queue.Queue[bytes | None]") -> None:
    if stream is not None:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait if it closed its output, else ask it to stop, and insist after a while."""
    if process.poll() is None:
        try:
            process.wait(timeout=2)
            return
        except subprocess.TimeoutExpired:
            process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
