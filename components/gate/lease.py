"""A lease of a name in the store: whoever holds it is alone, among processes on any machines.

It needs no conditional write, which not every S3 server knows (rclone ignores If-None-Match), but what is listed to
be what was written: Lamport's bakery (1974, CACM 17, 453-455). Whoever comes takes a number above all that there are,
and waits for those who have lower ones or are still choosing theirs. A claim that nobody renews is a dead process's.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wordmill.store.storage import Store

LEASE_S = 120.0  # after so long without a renewal a claim holds nobody up any more
RENEWAL_S = 30.0
POLL_S = 0.5
CHOOSING = 0


@dataclass(kw_only=True)
class StoreLease:
    """A claim in the store and when it was last renewed, in seconds of this machine's monotonic clock."""

    store: Store
    key: str
    number: int = CHOOSING
    renewed: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def renew(self) -> None:
        """Write the claim, with the time that the store gives it."""
        asked = time.monotonic()
        self.store.put_json(self.key, {"number": self.number})
        self.renewed = asked

    def check(self) -> None:
        """Refuse to go on where others may take this process for a dead one, or have."""
        if time.monotonic() - self.renewed > LEASE_S - RENEWAL_S:
            raise RuntimeError(f"the lease {self.key} could not be renewed in bucket '{self.store.bucket}' for "
                               f"{LEASE_S - RENEWAL_S:.0f} s: another may have it now: run again")  # fmt: skip
        if not self._is_there():
            raise RuntimeError(f"the lease {self.key} is gone from bucket '{self.store.bucket}': this process stood "
                               "still for so long that another may have it now: run again")  # fmt: skip

    def keep(self) -> None:
        """Renew until the lease ends or is lost; what goes wrong shows in the check."""
        while not self.ended.wait(RENEWAL_S):
            try:
                if not self._is_there():  # a claim that was written again would hide that another has been let in
                    return
                self.renew()
            except RuntimeError as error:
                print(f"lease {self.key}: {error}", flush=True)

    def _is_there(self) -> bool:
        """Tell whether nobody has deleted the claim, as of a process that is dead."""
        return self.store.get_bytes(self.key) is not None

    def others(self) -> dict[str, int]:
        """Return the numbers of all other live claims of the same name by their keys; delete dead ones."""
        times = self.store.modified(f"{self.key.rsplit('/', 1)[0]}/")
        now = times.get(self.key, max(times.values(), default=0.0)) + time.monotonic() - self.renewed
        found = {}
        for key, at in times.items():
            if key == self.key:
                continue
            if now - at > LEASE_S:
                self.store.delete(key)
            elif (claim := self.store.get_bytes(key)) is not None:  # else it has just ended
                found[key] = _number(claim)
        return found


def _number(claim: bytes) -> int:
    """Return a claim's number; one that is just being written is still chosen."""
    try:
        return int(json.loads(claim)["number"])
    except ValueError:
        return CHOOSING


@contextmanager
def leased(store: Store, name: str, holder: str) -> Iterator[StoreLease]:
    """Wait for a lease and hold it. What an earlier process of this holder, a run's tag, has left ends at once."""
    folder = f"leases/{name}/"
    for key in store.keys(f"{folder}{holder}."):
        store.delete(key)
    lease = StoreLease(store=store, key=f"{folder}{holder}.{secrets.token_hex(4)}.json")
    keeper = threading.Thread(target=lease.keep, daemon=True)
    try:
        lease.renew()
        lease.number = 1 + max(lease.others().values(), default=CHOOSING)
        lease.renew()
        keeper.start()
        _wait(lease, name)
        lease.check()
        yield lease
    finally:
        lease.ended.set()
        if keeper.is_alive():
            keeper.join()
        store.delete(lease.key)


def _wait(lease: StoreLease, name: str) -> None:
    """Wait until nobody has a lower number or is choosing one."""
    told = ""
    while before := [key for key, number in lease.others().items() if (number, key) < (lease.number, lease.key)]:
        if before[0] != told:
            told = before[0]
            print(f"{name}: waits for {told.rsplit('/', 1)[1].rsplit('.', 2)[0]}", flush=True)
        time.sleep(POLL_S)
