import gc
import time
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def busy_collector() -> Iterator[None]:
    """Let other threads run in the midst of what allocates, as tools that watch the garbage collector do."""
    threshold = gc.get_threshold()
    callback: Callable[[str, dict[str, int]], None] = lambda phase, info: time.sleep(0)  # noqa: E731
    gc.callbacks.append(callback)
    gc.set_threshold(10)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(callback)
