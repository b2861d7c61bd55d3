"""Embeds what is queued together: under load one forward pass serves many calls, and alone a call waits for nobody."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

MAX_BATCH = 16
MAX_QUEUED = 256  # about two seconds of work: beyond it, the caller's teacher is faster


class UnableToQueue(Exception):
    """Too many queries are waiting already."""


class Embeds(Protocol):
    """Turns texts into vectors; see training.lora.embed."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), width]."""


class MicroBatcher:
    """One worker thread, fed by one task; start() within the running loop, stop() before it ends."""

    def __init__(self, embedder: Embeds) -> None:
        self._embedder = embedder
        self._waiting: asyncio.Queue[tuple[str, asyncio.Future[torch.Tensor]]] = asyncio.Queue(MAX_QUEUED)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve the queue."""
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """Stop serving; what still waits is cancelled with its callers."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def embed(self, text: str) -> torch.Tensor:
        """The text's vector float32 [width]. Raises UnableToQueue, or whatever the embedder raised."""
        future: asyncio.Future[torch.Tensor] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((text, future))
        except asyncio.QueueFull as error:
            raise UnableToQueue("too many queries are waiting") from error
        return await future

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            texts = [text for text, _ in batch]
            done = asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)
            await asyncio.wait([done])
            self._hand_out(batch, done)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        return torch.as_tensor(self._embedder.embed(texts))

    def _hand_out(
        self, batch: list[tuple[str, asyncio.Future[torch.Tensor]]], done: asyncio.Future[torch.Tensor]
    ) -> None:
        error = done.exception()
        for row, (_, future) in enumerate(batch):
            if future.done():  # its caller has left
                continue
            if error is None:
                future.set_result(done.result()[row])
            else:
                future.set_exception(error)
