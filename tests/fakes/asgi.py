"""The few ASGI gestures that all fakes make."""

import asyncio


async def read_body(receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def send_json(send, status: int, body: bytes, headers=()) -> None:
    lines = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def left(receive) -> None:
    """Returns when the caller hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def sleep_or_leave(receive, seconds: float) -> bool:
    """Whether the caller hung up before the time was over."""
    try:
        await asyncio.wait_for(left(receive), seconds)
    except TimeoutError:
        return False
    return True
