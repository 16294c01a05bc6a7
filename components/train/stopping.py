"""The signals by which Kubernetes and people stop training, as an exception that nothing takes for a trouble.

Python drops what is raised in a destructor, as of a connection that is thrown away, and a signal may come in one: what
looks again and again asks for it.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wordmill.store.stages import StoppedError

Handler = Callable[[int, FrameType | None], None] | signal.Handlers
_came: list[str] = []  # signals since the outermost block began that no block has made an error of


class _Stop(BaseException):
    """A signal has come; whatever is being done, no handler of errors takes it for one of its own."""


@contextmanager
def sigterm_as_error() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into StoppedError, so that a stopped stage ends its workers and keeps what they did."""

    def stop(number: int, frame: FrameType | None) -> None:
        _came.append(signal.Signals(number).name)
        raise_if_stopped()

    try:
        with _handled_by(stop):
            yield
    except _Stop as error:
        raise StoppedError(f"training was stopped by {error}") from None
    finally:
        _came.clear()


def raise_if_stopped() -> None:
    """Raise within `sigterm_as_error` what a signal has raised already, where nobody may have seen it."""
    if _came:
        raise _Stop(_came[0])


@contextmanager
def sigterm_ignored() -> Iterator[None]:
    """Let what is being saved be saved: who stops training waits for some seconds before it kills."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def sigterm_later() -> Iterator[None]:
    """Have a signal wait until what is being started is known to whoever ends it."""
    came: list[int] = []
    with _handled_by(lambda number, frame: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
