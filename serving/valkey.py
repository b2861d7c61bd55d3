"""The way to a Valkey from an event loop: few connections, no retries, and an end to every wait."""

import redis.asyncio

MOST_CONNECTIONS = 16  # of a process; more steps than that wait for one


def connect(url: str, *, patience: float, connections: int = MOST_CONNECTIONS) -> redis.asyncio.Redis:
    """`patience` is seconds for a place, to connect, and for an answer, each."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=patience,
        socket_timeout=patience,
        socket_connect_timeout=patience,
        retry=None,
    )
    return redis.asyncio.Redis.from_pool(pool)
