"""Pictures of many requests in common batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice

import numpy as np

from wordmill.pictures.image import Picture
from wordmill.text.decoding import Reading

MOST_PICTURES = 64  # pictures of one batch
WAIT_S = 0.005  # how long a batch that is not full waits for more
ROOM = 1024  # pictures that may wait

Read = tuple[str, float]  # text and confidence in 0..1
Waiting = tuple[Picture, asyncio.Future[Read]]


class FullError(Exception):
    """There is no room for a request: what is in hand first."""


class Batcher:
    """Reads what waits, one batch at a time, in a thread of its own.

    A request that comes alone is read at once: a batch waits for more only where the last one held several requests.
    """

    def __init__(self, read: Callable[[Picture], Reading], tell: Callable[[int], object]) -> None:
        """Take the function that reads pictures (N, H, W, C), and one that is told of every batch's size."""
        self.network, self.tell = read, tell
        self.waiting: deque[Waiting] = deque()
        self.arrived, self.enough = asyncio.Event(), asyncio.Event()
        self.thread = ThreadPoolExecutor(1, "network")

    async def read(self, pictures: Sequence[Picture]) -> list[Read]:
        """Return text and confidence of each fitted picture (H, W, C); raise FullError where they have no room."""
        if len(self.waiting) + len(pictures) > ROOM:
            raise FullError("too many pictures are waiting")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in pictures]
        self.waiting.extend(zip(pictures, futures, strict=True))
        self.arrived.set()
        if len(self.waiting) >= MOST_PICTURES:
            self.enough.set()
        found: list[Read] = await asyncio.gather(*futures)
        return found

    async def run(self) -> None:
        """Read batch after batch until cancelled."""
        loop, shared = asyncio.get_running_loop(), False
        while True:
            await self.arrived.wait()
            if shared and len(self.waiting) < MOST_PICTURES:
                self.enough.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.enough.wait(), WAIT_S)
            batch = list(islice(self.waiting, MOST_PICTURES))
            shared = len(batch) > 1
            for _ in batch:
                self.waiting.popleft()
            if not self.waiting:
                self.arrived.clear()
            await loop.run_in_executor(self.thread, self._read, batch, loop)

    def _read(self, batch: list[Waiting], loop: asyncio.AbstractEventLoop) -> None:
        """Read a batch and hand its results, or the error, to those who wait for them."""
        try:
            self.tell(len(batch))
            texts, confidences = self.network(np.stack([picture for picture, _ in batch]))
            results: list[Read | Exception] = list(zip(texts, confidences.tolist(), strict=True))
        except Exception as error:  # whichever it is, the next batch may be all right
            results = [error] * len(batch)
        loop.call_soon_threadsafe(_answer, [future for _, future in batch], results)


def _answer(futures: list[asyncio.Future[Read]], results: Sequence[Read | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # whoever asked has gone
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
