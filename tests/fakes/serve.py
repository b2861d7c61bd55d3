"""Runs an ASGI app on a real socket in a thread, so that fakes are reached the way the real parts are."""

import socket
import threading
import time

import uvicorn

PATIENCE = 15.0


class Served:
    """A server on a free port of this machine; `with Served(app) as server:`, then `server.url`."""

    def __init__(self, app_or_config) -> None:
        config = app_or_config if isinstance(app_or_config, uvicorn.Config) else _quiet(app_or_config)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.url = ""

    def __enter__(self) -> "Served":
        self._thread.start()
        wait_for(lambda: self._server.started or not self._thread.is_alive())
        host, port = self._server.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(1.0)
        self._server.force_exit = True  # somebody is still on the line
        self._thread.join(PATIENCE)


def _quiet(app) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_level="critical",
        access_log=False,
        loop="uvloop",
        backlog=4096,
    )


def wait_for(condition, *, patience: float = PATIENCE, every: float = 0.005):
    """Poll until the condition holds and return its value; fail the test when patience ends."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(every)
    return value


def free_port() -> int:
    """A port nobody listens on: for what is down, or not up yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stand:
    """An app whose place is taken by another for each test: servers are slow to start and stop, apps are not."""

    def __init__(self) -> None:
        self.app = None

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)
