"""`python -m serving.gateway`: one gateway process on one core. Run as many as there are cores to give."""

import gc
import logging
import os
import resource
import sys

import aiohttp.http_parser
import uvicorn

from serving.gateway.app import App
from serving.gateway.settings import Settings, UnableToStart, read_settings

NAME_THREADS = "64"  # of which libuv lets half look names up at once; with its own 4, two slow names stop all others
DRAIN_SECONDS = 30  # after SIGTERM: how long calls in flight may still take


def main() -> int:
    """Read the settings, check the installation, serve until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = read_settings(os.environ)
        check_parser()
    except UnableToStart as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 2
    os.environ.setdefault("UV_THREADPOOL_SIZE", NAME_THREADS)  # read at the first lookup
    raise_file_limit()
    spare_collector()
    uvicorn.Server(server_config(settings)).run()
    return 0


def server_config(settings: Settings) -> uvicorn.Config:
    """uvicorn with nothing between the socket and the app, and no access log: paths and sizes are in the metrics."""
    return uvicorn.Config(
        App(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


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
    gc.set_threshold(20_000, 20, 50)


if __name__ == "__main__":
    sys.exit(main())
