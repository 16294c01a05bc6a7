"""Waiting for what another process or thread does: only a hang may end it, not a machine that is slow and busy."""

import time
from collections.abc import Callable

LIMIT_S = 300.0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; AssertionError where it never does."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not after {LIMIT_S:.0f} s"
        time.sleep(0.01)
