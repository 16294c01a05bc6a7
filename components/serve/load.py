"""What the service has in hand, and whether what comes is refused at once instead of waiting for long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.serve.batching import MOST_PICTURES, FullError

REQUESTS = 256  # that may be in hand at a time
BODY_BYTES = 512 << 20  # of bodies that are in memory, whole or still coming
WAIT_S = 1.0  # a request that would wait for longer is refused
KEEP = 0.98  # of the measured pace at each request: about the last 50 count


class Load:
    """Requests, pictures and bytes in hand, and the pace at which pictures leave it."""

    def __init__(self) -> None:
        self.requests = self.pictures = self.bytes = 0
        self.since = 0.0  # when the last request left, or the first came after a pause
        self.seconds = self.left = 0.0  # of lately

    @property
    def wait_s(self) -> float:
        """Return how long what is in hand will take."""
        return self.pictures * self.seconds / self.left if self.left else 0.0

    @property
    def full(self) -> bool:
        """Tell whether a request that came now would be refused."""
        # A batch is always let in: a pause of the whole machine, too, looks like a slow network.
        slow = self.pictures >= MOST_PICTURES and self.wait_s > WAIT_S
        return slow or self.requests >= REQUESTS or self.bytes >= BODY_BYTES

    def check(self) -> None:
        """Raise FullError where a request would be refused."""
        if self.requests >= REQUESTS:
            raise FullError(f"{REQUESTS} requests are in hand already")
        if self.full:
            raise FullError("too much is in hand already")

    @contextmanager
    def taken(self, pictures: int) -> Iterator[None]:
        """Have a whole request with so many pictures in hand; raise FullError where it would wait too long."""
        self.check()
        if not self.requests:
            self.since = time.perf_counter()
        self.requests += 1
        self.pictures += pictures
        try:
            yield
        finally:
            self.requests -= 1
            self.pictures -= pictures
            self._count(pictures, time.perf_counter())

    def _count(self, pictures: int, now: float) -> None:
        self.seconds = self.seconds * KEEP + now - self.since
        self.left = self.left * KEEP + pictures
        self.since = now


class Held:
    """The bytes of one request's body that are in memory."""

    def __init__(self, load: Load) -> None:
        self.load, self.bytes = load, 0

    def take(self, count: int) -> None:
        """Note so many bytes more; raise FullError where there is no room for them."""
        if self.load.bytes + count > BODY_BYTES:
            raise FullError("too much is in hand already")
        self.load.bytes += count
        self.bytes += count

    def give_back(self) -> None:
        """Note that none of them are kept any more."""
        self.load.bytes -= self.bytes
        self.bytes = 0
