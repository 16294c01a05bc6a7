import pytest

from components.serve import load
from components.serve.batching import FullError
from components.serve.load import Held, Load


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(load.time, "perf_counter", lambda: self.now)


def test_what_would_wait_longer_than_a_second_is_refused_once_a_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, service = Clock(monkeypatch), Load()
    assert (service.wait_s, service.full) == (0.0, False)
    with service.taken(10):
        clock.now += 0.2
    with service.taken(63):  # 63 pictures of 20 ms: more than a second, but no batch yet
        assert service.wait_s == pytest.approx(63 * 0.02)
        assert not service.full
        with service.taken(1):
            assert service.full
            with pytest.raises(FullError, match="too much is in hand already"), service.taken(1):
                pass
    assert (service.requests, service.pictures) == (0, 0)


def test_the_pace_is_of_lately_and_a_pause_is_no_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, service = Clock(monkeypatch), Load()
    with service.taken(1):
        clock.now += 1.0
    clock.now += 3600.0  # nobody asks
    with service.taken(1), service.taken(99):
        clock.now += 0.1
    assert service.seconds / service.left == pytest.approx((1.0 * 0.98**2 + 0.1) / (0.98**2 + 99 * 0.98 + 1), rel=0.02)
    for _ in range(400):
        with service.taken(1):
            clock.now += 0.001
    assert service.seconds / service.left == pytest.approx(0.001, rel=0.05)


def test_requests_and_the_bytes_of_bodies_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "REQUESTS", 2)
    monkeypatch.setattr(load, "BODY_BYTES", 1000)
    service = Load()
    with service.taken(1), service.taken(1), pytest.raises(FullError, match="2 requests are in hand already"):
        service.check()
    one, two = Held(service), Held(service)
    one.take(600)
    two.take(400)
    assert service.full
    with pytest.raises(FullError, match="too much is in hand already"):
        two.take(1)
    one.give_back()
    one.give_back()
    two.take(600)
    assert (service.bytes, service.full) == (1000, True)
    two.give_back()
    assert service.bytes == 0
