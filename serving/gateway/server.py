"""uvicorn with nothing between the socket and the app, and a way of leaving that no caller notices."""

import asyncio
import logging
import resource
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn

from serving.gateway.app import App
from serving.gateway.listener import BACKLOG, Listener
from serving.gateway.protocol import CallerConnection
from serving.gateway.settings import Settings
from serving.gateway.slot import Slot

DRAIN_SECONDS = 30.0  # after SIGTERM: how long calls in flight may still take
GIVE_UP_SECONDS = 5  # after that: how long those that are cut may take to be recorded
LAST_CALLS_SECONDS = 5.0  # how long a connection without a call is kept, so that whoever uses it is told to leave it
LOOK_EVERY = 0.05
KEPT_FILES = 256  # descriptors that are for neither callers nor providers
CANNOT_START = 3
CLOSE = (b"connection", b"close")

logger = logging.getLogger(__name__)


def server_config(settings: Settings, app: App) -> uvicorn.Config:
    """uvicorn starts, listens and stops; connections are ours. No access log: calls are in the log and the metrics."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=CallerConnection,  # type: ignore[arg-type]  # a protocol in all but its bases
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=GIVE_UP_SECONDS,
    )


def most_connections() -> int | None:
    """Callers' connections at once: with as many to providers, and what else is open, they fit into what this process
    may open. Beyond, callers are hung up on, so that those who are there can be answered, and what is answered kept.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else max(allowed - KEPT_FILES, allowed // 2) // 2


class Server(uvicorn.Server):
    """Serves until told to stop: SIGTERM gives the calls in flight DRAIN_SECONDS, SIGUSR1 gives them `patience`.

    It then takes no connection more and answers each call that still comes with `connection: close`, so that its caller
    uses another connection next, which another process takes. A connection that is just closed would lose the call that
    was on its way.
    """

    def __init__(self, config: uvicorn.Config, *, patience: float, slot: Slot | None = None) -> None:
        super().__init__(config)
        self._until = float("inf")  # by the monotonic clock, when calls in flight are cut
        self._patience = patience
        self._slot = slot
        self._listener: Listener | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and hear the supervisor."""
        if self._slot is None:
            await super().startup(sockets=sockets)
        else:
            await self._share(self._slot)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._take_time)

    async def _share(self, slot: Slot) -> None:
        """Listen where others do too."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(CANNOT_START)
        slot.watch(left_alone=self._hurry)
        self.servers = []
        self._listener = Listener(slot.listening, self._make_protocol)
        if slot.eager:
            self._listener.open()
        self.started = True

    def _make_protocol(self) -> asyncio.Protocol:
        connection: Any = CallerConnection(self.config, self.server_state, self.lifespan.state)
        return connection  # type: ignore[no-any-return]  # a protocol in all but its bases

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell the supervisor once that calls can be answered. Gives whether to stop."""
        if self._slot is not None and not self._slot.told_ready and self._is_ready():
            if self._listener is not None:
                self._listener.open()
            self._slot.tell_ready()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT; a second SIGINT cuts everything."""
        self._until = time.monotonic() + DRAIN_SECONDS
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let callers finish and leave; cut those who take too long."""
        for server in self.servers:
            server.close()
        if self._listener is not None:
            self._listener.close()
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        started = time.monotonic()
        while self.server_state.connections and not self.force_exit and time.monotonic() < self._until:
            self._close_unused(started)
            await asyncio.sleep(LOOK_EVERY)
        await super().shutdown(sockets=sockets)

    def _take_time(self) -> None:
        self._leave_within(self._patience)

    def _hurry(self) -> None:
        logger.error("the supervisor is gone: stopping")
        self._leave_within(DRAIN_SECONDS)

    def _leave_within(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.should_exit = True

    def _is_ready(self) -> bool:
        app = self.config.app
        return isinstance(app, App) and app.is_ready

    def _close_unused(self, since: float) -> None:
        now = time.monotonic()
        for connection in self._connections():
            if connection.is_unused and now - max(since, connection.unused_since) > LAST_CALLS_SECONDS:
                connection.shutdown()

    def _connections(self) -> list[CallerConnection]:
        return [found for found in self.server_state.connections if isinstance(found, CallerConnection)]
