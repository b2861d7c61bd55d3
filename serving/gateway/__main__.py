"""`python -m serving.gateway`: GATEWAY_PROCESSES gateway processes on one port, one for each core that it is given.

With one, this process is the gateway. With more it is their supervisor, and starts each with a slot (`slot.py`).
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence

import aiohttp.http_parser

from serving.gateway.app import App
from serving.gateway.listener import listen
from serving.gateway.server import Server, server_config
from serving.gateway.settings import Settings, UnableToStart, read_settings
from serving.gateway.slot import Slot, read_slot
from serving.gateway.supervisor import Supervisor

NAME_THREADS = "64"  # of which libuv lets half look names up at once; with its own 4, two slow names stop all others


def main(arguments: Sequence[str]) -> int:
    """Read the settings, check the installation, serve until told to stop. `arguments` are a slot's, or none."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = read_settings(os.environ)
        check_parser()
        raise_file_limit()
        if settings.processes > 1 and not arguments:
            supervise(settings)
        else:
            serve(settings, read_slot(arguments) if arguments else None)
    except UnableToStart as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    return 0


def supervise(settings: Settings) -> None:
    """Keep the processes. Raises UnableToStart."""
    try:
        listening = listen(settings.host, settings.port)
    except OSError as error:
        raise UnableToStart(f"GATEWAY_HOST and GATEWAY_PORT cannot be listened on: {error.strerror}") from error
    with listening:
        asyncio.run(Supervisor(listening, processes=settings.processes).run())


def serve(settings: Settings, slot: Slot | None) -> None:
    """Be one gateway process."""
    os.environ.setdefault("UV_THREADPOOL_SIZE", NAME_THREADS)  # read at the first lookup
    spare_collector()
    app = App(settings, slot=slot)
    server = Server(server_config(settings, app), patience=settings.teacher_timeout, slot=slot)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is the supervisor's to hear; one process alone has none
    server.run(sockets=[slot.listening] if slot else None)


def check_parser() -> None:
    """Refuse to start without aiohttp's C parser: the Python one is slower and laxer. Raises UnableToStart."""
    if aiohttp.http_parser.HttpResponseParser is aiohttp.http_parser.HttpResponseParserPy:
        raise UnableToStart("aiohttp is installed without its C parser")


def raise_file_limit() -> None:
    """Two sockets a call: take all the file descriptors that this process is allowed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def spare_collector() -> None:
    """Keep the garbage collector off what lives as long as the process: a tenth of a call's cost was its rounds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
