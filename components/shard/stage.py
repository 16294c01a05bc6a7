"""The shard stage: packs every fetched data set into LMDB shards of decoded, resized pictures."""

import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from components.recognition.archives import kind_of, unpack
from components.recognition.artifacts import Manifest, find_manifest, read_manifest, write_atomically
from components.recognition.blocks import SHARD_SAMPLES
from components.recognition.catalogue import Entry
from components.recognition.charset import charset_of
from components.recognition.image import PICTURE_KEYS, to_channels
from components.recognition.progress import Progress
from components.recognition.readers import open_reader
from components.recognition.recipe import Data, from_json, parse_section
from components.recognition.shards import ShardSet
from components.recognition.stages import Made, find_or_make, run_stage
from components.recognition.storage import Store
from components.recognition.synth import contact_sheet
from components.shard.packing import Packed, Rules, Task, pack

CONTACTS = 64  # pictures on the contact sheet
LISTED = 50  # quarantined samples that the manifest lists; the object quarantine.json has them all
TOLERATED = 0.5  # share of a data set that may be quarantined


def run(*, data: str, sources: str, run_tag: str, output: str) -> str:
    """Pack data sets into shards.

    data: JSON of the recipe's data section. sources: the fetch stage's manifest. output: where this one goes.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        section, fetched = from_json(Data, data), read_manifest(sources)
        if both := sorted(set(section.train) & set(section.val)):
            raise ValueError(f"data set '{both[0]}' is in data.train and in data.val: a set is for one of them")
        packed = [_shard(store, section, fetched, name) for name in fetched.facts["datasets"]]
        facts = {"datasets": {manifest.name: manifest.reference for manifest, _ in packed}}
        combined, _ = find_or_make(store, "shard", "datasets", facts, lambda folder: Made(files={}, facts=facts))
        return combined, all(found for _, found in packed)

    return run_stage("shard", "datasets", run_tag, output, work)


def _shard(store: Store, data: Data, fetched: Manifest, name: str) -> tuple[Manifest, bool]:
    training = name in data.train
    entry = parse_section(Entry, fetched.facts["entries"][name], f"{fetched.reference}: {name}")
    rules = Rules(data=data, charset=charset_of(data), training=training)
    limit = data.limit if training else 0
    reference = fetched.facts["datasets"][name]
    inputs = {
        "source": reference,
        "reading": {key: getattr(entry, key) for key in ("reader", "samples", "labels", "label_format")},
        "picture": {key: getattr(data, key) for key in PICTURE_KEYS},
        "symbols": rules.charset.symbols,
        "training": training,
        "drops_odd": rules.drops_odd,
        "limit": limit,
    }
    return find_or_make(store, "shard", name, inputs, partial(_make, store, name, entry, reference, rules, limit))


def _make(store: Store, name: str, entry: Entry, reference: str, rules: Rules, limit: int, folder: Path) -> Made:
    try:
        return _packed_set(store, name, entry, reference, rules, limit, folder)
    except ValueError as error:
        raise ValueError(f"data set '{name}' ({entry.source}): {error}") from error
    except RuntimeError as error:
        raise RuntimeError(f"data set '{name}' ({entry.source}): {error}") from error


def _packed_set(store: Store, name: str, entry: Entry, reference: str, rules: Rules, limit: int, folder: Path) -> Made:
    root = _unpacked(store, reference, entry, folder)
    samples = len(open_reader(entry, root))
    if samples != entry.samples:
        raise ValueError(f"expected {entry.samples} samples, found {samples}: is the source whole?")
    count = min(samples, limit) if limit else samples
    _check_room(folder, count, rules)
    starts = range(0, count, SHARD_SAMPLES)
    tasks = [
        Task(
            entry=entry,
            root=root,
            start=start,
            stop=min(start + SHARD_SAMPLES, count),
            path=folder / f"{number:05}.lmdb",
            rules=rules,
        )
        for number, start in enumerate(starts)
    ]
    progress, results = Progress(f"shard {name}", count, "images"), []
    for task, packed in zip(tasks, _packed(tasks), strict=True):
        results.append(packed)
        progress.update(task.stop, f"{len(packed.quarantine)} put aside" if packed.quarantine else "")
    return _summary(rules, folder, count, list(zip(tasks, results, strict=True)))


def _unpacked(store: Store, reference: str, entry: Entry, folder: Path) -> Path:
    """Return the folder with a data set's files; it is empty for one that is rendered."""
    manifest = find_manifest(store, reference)
    if manifest is None:
        raise RuntimeError(f"{reference} is not whole in the store any more: run the fetch stage again")
    root = folder / "source"
    if not manifest.objects:
        return root
    archive = store.fetch(manifest.object("archive"))
    if kind_of(archive) == "file":
        root.mkdir()
        (root / manifest.facts["file"]).symlink_to(archive)
    else:
        unpack(archive, root, source=PurePosixPath(entry.source).name)
    return root


def _check_room(folder: Path, count: int, rules: Rules) -> None:
    height, width, channels = rules.shape
    needed, free = count * height * width * channels, shutil.disk_usage(folder).free
    if needed > free:
        raise RuntimeError(f"shards of {needed:,} bytes do not fit on {folder}, {free:,} are free")


def _packed(tasks: list[Task]) -> Iterator[Packed]:
    """Yield the tasks' results in order, worked out by one process per core."""
    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    if workers < 2:
        yield from map(pack, tasks)
        return
    # Spawned, because a fork would carry over the locks of this process's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(pack, tasks)
        except BrokenProcessPool:
            raise RuntimeError("a worker process of the shard stage was killed: most likely memory ran out") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the stage ends, however it ends; a killed parent tells its workers nothing."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _summary(rules: Rules, folder: Path, read: int, results: list[tuple[Task, Packed]]) -> Made:
    quarantine = [item for _, packed in results for item in packed.quarantine]
    if len(quarantine) > TOLERATED * read:
        first = quarantine[0]
        raise ValueError(f"{len(quarantine)} of {read} samples are unusable: {first}: is it the right data?")
    kept = [(task.path, packed) for task, packed in results if packed.samples]
    dropped = sum((packed.dropped for _, packed in results), Counter[str]())
    if not kept:
        raise ValueError(f"none of {read} samples is left: dropped {dict(dropped)}: check data.charset")
    shards = [{"object": path.name, "samples": packed.samples, "blocks": packed.blocks} for path, packed in kept]
    files = {path.name: path for path, _ in kept} | {"contact_sheet.png": _contact_sheet([p for p, _ in kept], folder)}
    if quarantine:
        files["quarantine.json"] = folder / "quarantine.json"
        write_atomically(files["quarantine.json"], json.dumps(quarantine, indent=1, ensure_ascii=False))
    facts: dict[str, Any] = {
        "samples": sum(packed.samples for _, packed in kept),
        "read": read,
        "shape": list(rules.shape),
        "shards": shards,
        "dropped": dict(dropped),
        "changed": dict(sum((packed.changed for _, packed in results), Counter[str]())),
        "quarantined": len(quarantine),
        "quarantine": quarantine[:LISTED],
    }
    return Made(files=files, facts=facts)


def _contact_sheet(paths: list[Path], folder: Path) -> Path:
    """Draw samples that lie evenly over a data set, with their labels."""
    shards = ShardSet.open(paths)
    places = [(index, row) for index, rows in enumerate(shards.rows) for row in rows.tolist()]
    images, labels = [], []
    for index, row in places[:: max(1, len(places) // CONTACTS)][:CONTACTS]:
        block = shards.block(index)
        images.append(to_channels(block.images[row], 1)[:, :, 0])
        labels.append(block.label(row))
    sheet = folder / "contact_sheet.png"
    sheet.write_bytes(contact_sheet(images, labels))
    return sheet
