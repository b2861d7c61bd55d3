"""What one of several gateway processes is told when it is started, and its line to the supervisor that started it.

The line is a socket pair. The process sends one byte down it when it can answer calls; the supervisor sends nothing,
but while it lives it keeps its end open.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

READY = b"."


@dataclass(slots=True)
class Slot:
    """A process's place among several. `number` is its own as long as it lives; `directory` is where all meet."""

    listening: socket.socket
    line: socket.socket
    number: int
    directory: Path
    eager: bool  # callers may be told that it is starting: nobody else could answer them
    told_ready: bool = field(default=False)

    def arguments(self) -> list[str]:
        """As command-line arguments."""
        return [
            str(self.listening.fileno()),
            str(self.line.fileno()),
            str(self.number),
            str(self.directory),
            str(int(self.eager)),
        ]

    def tell_ready(self) -> None:
        """Calls can be answered."""
        self.told_ready = True
        self.line.send(READY)

    def watch(self, *, left_alone: Callable[[], None]) -> None:
        """Call `left_alone` when the supervisor ends, however it ends. Needs a running loop."""
        loop = asyncio.get_running_loop()

        def hear() -> None:
            loop.remove_reader(self.line)
            left_alone()

        self.line.setblocking(False)
        loop.add_reader(self.line, hear)


def read_slot(arguments: Sequence[str]) -> Slot:
    """What `arguments` wrote, in the process it was written for. Raises ValueError, OSError."""
    listening, line, number, directory, eager = arguments
    sockets = socket.socket(fileno=int(listening)), socket.socket(fileno=int(line))
    return Slot(*sockets, int(number), Path(directory), eager=eager == "1")
