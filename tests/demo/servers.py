"""Runs the stand-in teacher on a free port of this machine, in a thread, for tests that speak to it over HTTP."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import uvicorn

from demo.teacher import Manner, Teacher

CREDENTIAL = "a-teacher-credential"


@contextmanager
def run_teacher(*, latency_ms: float = 0.0) -> Iterator[str]:
    """The base URL of a teacher that takes CREDENTIAL."""
    app = Teacher(Manner(CREDENTIAL, latency_ms), rng=Random(1), clock=time.time)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
