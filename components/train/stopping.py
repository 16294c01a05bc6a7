"""SIGTERM, by which Kubernetes and people stop training, as an exception that nothing takes for a trouble."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(RuntimeError):
    """Somebody stopped training, which had done nothing wrong."""


class _Stop(BaseException):
    """SIGTERM has come; whatever is being done, no handler of errors takes it for one of its own."""


@contextmanager
def sigterm_as_error() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that a stopped stage ends its workers and removes its files."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stop

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Stop:
        raise StoppedError("training was stopped by SIGTERM") from None
    finally:
        signal.signal(signal.SIGTERM, before)
