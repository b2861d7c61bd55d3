"""Says what is going on and how far it is: one living line on a terminal, a line now and then elsewhere."""

import sys
import time

WIDTH = 24
QUIET_SECONDS = 10.0  # between two lines of one step where the output is a file


class Screen:
    """Steps, one after the other."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._living = sys.stdout.isatty()
        self._last = 0.0
        self._step = ""

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step, self._last = title, 0.0
        self.note(title)

    def note(self, line: str) -> None:
        """Say something that stays."""
        self._write(f"\r\x1b[2K{self._clock()} {line}\n" if self._living else f"{self._clock()} {line}\n")

    def show(self, detail: str, *, done: float | None = None) -> None:
        """Say how the step stands; `done` is its share, in [0, 1], where that is known."""
        bar = ""
        if done is not None:
            filled = round(max(0.0, min(done, 1.0)) * WIDTH)
            bar = f"[{'█' * filled}{'·' * (WIDTH - filled)}] "
        if self._living:
            self._write(f"\r\x1b[2K{self._clock()}   {bar}{detail}"[:200])
        elif time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self._write(f"{self._clock()}   {bar}{detail}\n")

    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._started

    def _clock(self) -> str:
        minutes, seconds = divmod(int(self.seconds()), 60)
        return f"{minutes:3d}:{seconds:02d}"

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
