"""What of the bulk bytes nothing names any more: listed first, and deleted a day later where that is asked for.

An object is named by a document of the last days, by a registered model's manifest, and by what such documents name in
turn. No run loses what it works with: whoever stores an object that is listed stores it again, whoever finds a manifest
renews it, and what is younger than a day, or has not been listed for so long, stays.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wordmill.store.runs import judged_key
from wordmill.store.storage import SWEPT_LIST, Store

GRACE_S = 86400.0  # more than passes between an object's storing and its manifest's
DOCUMENTS = ("manifests/", "jobs/", "contents/")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
REFERENCE = re.compile(r"\b([a-z]+/[0-9a-f]{32})\b")
READS = 16  # documents at a time


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The keys of objects that nothing names, with their bytes; which of them may go now, and how many are gone."""

    unnamed: dict[str, int]
    ripe: list[str]
    deleted: int


def sweep(store: Store, days: float, registered: Iterable[str], delete: bool) -> Swept:
    """List what no document of so many days and no registered text, such as a tag, names; delete what is ripe."""
    now = store_time(store)
    objects = store.stored("objects/")
    named = named_digests(store, now - 86400 * days, registered)
    unnamed = {key: size for key, (size, at) in objects.items()
               if digest_of_key(key) not in named and now - at > GRACE_S}  # fmt: skip
    before = store.get_json(SWEPT_LIST) or {}
    listed = {key: float(before.get(key, now)) for key in unnamed}
    store.put_json(SWEPT_LIST, listed)
    ripe = sorted(key for key, since in listed.items() if now - since > GRACE_S)
    times = {key: objects[key][1] for key in ripe}
    return Swept(unnamed=unnamed, ripe=ripe, deleted=remove(store, times, now) if delete else 0)


def remove(store: Store, times: dict[str, float], now: float) -> int:
    """Delete objects, by key, that nothing has named or stored again since they were looked at; return how many."""
    newly, again = named_digests(store, now, ()), store.modified("objects/") if times else {}
    going = [key for key, at in times.items() if digest_of_key(key) not in newly and again.get(key) == at]
    for key in going:
        store.delete(key)
    return len(going)


def named_digests(store: Store, since: float, texts: Iterable[str]) -> set[str]:
    """Return the digests that documents written since a time, by the store's clock, and those that texts refer to name.

    A digest anywhere in a document counts, and so does every manifest that it refers to.
    """
    recent = [key for prefix in DOCUMENTS for key, at in store.modified(prefix).items() if at >= since]
    waiting = {*recent, *(place for text in texts for place in (*_references(text), *_judged(text)))}
    read, digests = set[str](), set[str]()
    with ThreadPoolExecutor(READS) as pool:
        while waiting:
            read |= waiting
            bodies = [(body or b"").decode(errors="replace") for body in pool.map(store.get_bytes, sorted(waiting))]
            digests.update(*map(DIGEST.findall, bodies))
            waiting = {place for body in bodies for place in _references(body)} - read
    return digests


def store_time(store: Store) -> float:
    """Return the time by the store's clock, unix time in s."""
    key = "sweep/clock.json"
    store.put_json(key, {})
    return store.modified(key)[key]


def digest_of_key(key: str) -> str:
    """Return the sha256 of what lies under an object's key."""
    return key.rpartition("/")[2]


def _judged(text: str) -> set[str]:
    return {judged_key(found) for found in REFERENCE.findall(text)}


def _references(text: str) -> set[str]:
    return {f"manifests/{found}.json" for found in REFERENCE.findall(text)}
