"""Takes connections from a socket that several processes share, one at a time, so that each gets some.

A server that takes all that wait, as event loops' own do, leaves the others none when many callers come at once. Taking
one a round, the process that has least to do comes round most often.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

BACKLOG = 4096  # connections that nobody has taken yet
PAUSE_SECONDS = 1.0  # after a connection could not be taken: no file descriptors are left, say

logger = logging.getLogger(__name__)


class Listener:
    """Closed until it is opened; `make_protocol` serves each connection. Needs a running loop."""

    def __init__(self, listening: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)

    def open(self) -> None:
        """Take connections from now on."""
        self._loop.add_reader(self._listening, self._take_one)

    def close(self) -> None:
        """Take no more. What waits is for the other processes."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    def _take_one(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was first, or the caller left
        except OSError as error:
            logger.error("no connection can be taken for now: %s", error.strerror)
            self._loop.remove_reader(self._listening)
            self._pause = self._loop.call_later(PAUSE_SECONDS, self.open)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._make_protocol, connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)


def listen(host: str, port: int) -> socket.socket:
    """The one socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
