"""The lock of each source without a published digest: what its first use found, and later uses are held to.

Locks lie in the store, so that all who share it compare with the same first use.
"""

from datetime import UTC, datetime
from typing import Any

from wordmill.store.artifacts import digest
from wordmill.store.storage import Store


def lock_key(source: str) -> str:
    """Return the key of a source's lock in the store."""
    return f"locks/sources/{digest(source)}.json"


def hold(store: Store, source: str, sha256: str, names: list[str], run_tag: str) -> None:
    """Compare what was fetched with the first use of its source, or record it as that; ValueError for a change."""
    lock = store.get_json(lock_key(source))
    if lock is None:
        today = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"source": source, "sha256": sha256, "names": names, "run": run_tag, "time": today}
        store.put_json(lock_key(source), document)
        print(f"fetch {', '.join(names)}: first use of {source}: recorded sha256 {sha256}\n", end="", flush=True)
    elif lock["sha256"] != sha256:
        raise ValueError(f"data set '{names[0]}': {source} has changed: sha256 is {sha256}, it was {lock['sha256']} "
                         f"when run {lock['run']} used it first, {lock['time']}: to go on with what it is now, "
                         f"python -m pipelines accept '{source}'")  # fmt: skip


def accept(store: Store, source: str) -> dict[str, Any]:
    """Forget the first use of a source, so that the next one counts as the first; return what was recorded."""
    lock = store.get_json(lock_key(source))
    if lock is None:
        raise ValueError(f"{source}: no use of this source is recorded in s3://{store.bucket}: is it written as there?")
    store.delete(lock_key(source))
    return lock
