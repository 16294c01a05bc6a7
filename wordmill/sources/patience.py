"""Patience with servers: what a network may break is repeated, ever more slowly, as long as it gets further."""

import threading
from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 6  # in a row that get no further
BACKOFF_S = 1.0  # after the first failure; twice as long after each further one
LONGEST_WAIT_S = 300.0  # that a server may ask for
PASSING = {408, 425, 429}  # refusals that another attempt may not meet

Answer = TypeVar("Answer")


class RefusedError(Exception):
    """A server's refusal: its HTTP status, and how long it asks to be left alone, 0 where it does not say."""

    def __init__(self, status: int, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(f"refused with {status} {reason}".rstrip())
        self.status, self.wait_s = status, wait_s


class ChangedError(RuntimeError):
    """A file on a server is not the one any more that was asked for."""


class CancelledError(Exception):
    """The work was told to end."""


def patiently(
    address: str, stop: threading.Event, work: Callable[[], Answer], reached: Callable[[], int] = lambda: 0
) -> Answer:
    """Repeat work until it succeeds, is refused for good, or fails several times in a row without getting further.

    `reached` tells in bytes how far the work has got; `stop` ends the waiting with CancelledError.
    """
    failures, best = 0, reached()
    while True:
        try:
            return work()
        except (ConnectionError, RefusedError) as error:
            wait_s = _asked_for(address, error)
            failures = 1 if reached() > best else failures + 1
            best = max(best, reached())
            if failures == ATTEMPTS:
                attempts = f"gave up after {ATTEMPTS} attempts"
                raise RuntimeError(f"{address}: {attempts}: {error}: check the network") from error
            pause_s = max(BACKOFF_S * 2 ** (failures - 1), wait_s)
            print(f"{address}: {error}: again in {pause_s:.0f} s\n", end="", flush=True)
            if stop.wait(pause_s):
                raise CancelledError from None


def _asked_for(address: str, error: ConnectionError | RefusedError) -> float:
    """Return how long the server asks to wait; raise for what waiting does not help."""
    if not isinstance(error, RefusedError):
        return 0.0
    if 400 <= error.status < 500 and error.status not in PASSING:
        raise ValueError(f"{address}: {error}: check the address in the catalogue and who may read it") from None
    if error.wait_s > LONGEST_WAIT_S:
        raise RuntimeError(f"{address}: {error}: it asks to come back in {error.wait_s:.0f} s: run again then")
    return error.wait_s
