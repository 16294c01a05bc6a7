import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection

import pytest

from components.gate import lease
from components.gate.lease import leased
from wordmill.store.storage import Store


def claims(store: Store) -> list[str]:
    return list(store.keys("leases/"))


def test_one_at_a_time_holds_a_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_S", 0.02)
    inside, most, order = list[int](), list[int](), list[int]()

    def hold(number: int) -> None:
        with leased(Store(store.bucket, store.cache), "gate/r", f"run{number}"):
            inside.append(number)
            most.append(len(inside))
            order.append(number)
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, sorted(order)) == ([1] * 5, [0, 1, 2, 3, 4])
    assert claims(store) == []


def test_whoever_chooses_is_waited_for_and_another_name_is_not(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited = list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        store.put_json("leases/gate/r/other.1.json", {"number": 9})  # it has chosen, above what it found
        store.put_bytes("leases/gate/r/late.1.json", b"", "")  # half written
        if len(waited) > 1:
            store.delete("leases/gate/r/late.1.json")

    monkeypatch.setattr(lease.time, "sleep", sleep)
    store.put_json("leases/gate/r/other.1.json", {"number": 0})
    store.put_json("leases/gate/s/third.1.json", {"number": 1})
    with leased(store, "gate/r", "mine") as held:
        assert (held.number, waited) == (1, [lease.POLL_S] * 2)
    assert capsys.readouterr().out == "gate/r: waits for other\ngate/r: waits for late\n"


def test_a_dead_process_holds_nobody_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_json("leases/gate/r/dead.1.json", {"number": 1})
    times = store.modified
    old = {"leases/gate/r/dead.1.json": -lease.LEASE_S - 1}
    monkeypatch.setattr(
        store, "modified", lambda prefix: {key: at + old.get(key, 0) for key, at in times(prefix).items()}
    )
    with leased(store, "gate/r", "mine"):
        assert [key.rsplit("/", 1)[1][:4] for key in claims(store)] == ["mine"]


def hold(pipe: Connection) -> None:
    with leased(Store.from_environment(), "gate/r", "killed"):
        pipe.send("holds")
        pipe.recv()


def test_a_process_that_is_killed_while_it_holds_a_lease_is_waited_for_until_it_is_known_to_be_dead(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spawn, times, dead = multiprocessing.get_context("spawn"), store.modified, list[str]()
    here, there = spawn.Pipe()
    other = spawn.Process(target=hold, args=(there,))
    other.start()
    assert here.recv() == "holds"
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join()
    (left,) = claims(store)
    late = lease.LEASE_S + 1  # what the store's clock goes on by while the next one waits
    monkeypatch.setattr(store, "modified", lambda at: {key: t - late * (key in dead) for key, t in times(at).items()})
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: dead.append(left))
    with leased(store, "gate/r", "next") as held:
        assert (held.number, claims(store), dead) == (2, [held.key], [left])
    assert capsys.readouterr().out == "gate/r: waits for killed\n"


def test_whoever_was_taken_for_dead_holds_nothing_when_he_wakes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(store, "gate/r", "asleep") as held:
        store.delete(held.key)  # as the next one does
        monkeypatch.setattr(lease, "RENEWAL_S", 0.0)
        monkeypatch.setattr(held, "renew", held.ended.set)
        held.keep()
        assert not held.ended.is_set()
        assert claims(store) == []
        with pytest.raises(RuntimeError, match="leases/gate/r/asleep.* is gone .* another may have it now: run again"):
            held.check()


def test_what_an_earlier_process_of_the_same_run_left_ends_at_once(store: Store) -> None:
    store.put_json("leases/gate/r/mine.1.json", {"number": 1})
    with leased(store, "gate/r", "mine") as held:
        assert claims(store) == [held.key]


def test_a_lease_that_cannot_be_renewed_is_not_relied_on(store: Store) -> None:
    with leased(store, "gate/r", "mine") as held:
        held.check()
        held.renewed -= lease.LEASE_S
        with pytest.raises(RuntimeError, match="leases/gate/r/mine.* could not be renewed .* another may have it now"):
            held.check()


def test_a_lease_is_renewed_while_it_is_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_S", 0.01)
    with leased(store, "gate/r", "mine") as held:
        first, deadline = held.renewed, time.monotonic() + 30
        while held.renewed == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert held.renewed > first
