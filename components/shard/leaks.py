"""Training pictures that are a benchmark's: resized, compressed anew or cropped a little, whatever their labels say."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components import keys
from components.shard.pieces import PRINTS
from wordmill.pictures.image import Picture, to_channels
from wordmill.pictures.resemblance import Lookup, Numbers
from wordmill.pictures.sheet import contact_sheet
from wordmill.recipe.sections import Data
from wordmill.shards.index import INDEX
from wordmill.shards.loader import chosen_batch
from wordmill.shards.sets import open_sets
from wordmill.store.artifacts import Manifest
from wordmill.store.stages import StageResult, find_or_make
from wordmill.store.storage import Store

AT_ONCE = 1 << 19  # fingerprints of training that are looked up together
SHOWN = 32  # pairs on the sheet
SHEET = "leaks.png"


def join_prints(parts: Sequence[tuple[Path, int]], output: Path) -> None:
    """Write the fingerprints of shards, each with its number of samples, as those of one data set."""
    arrays = [np.load(path, mmap_mode="r") for path, _ in parts]
    shape = sum(map(len, arrays)), arrays[0].shape[1]
    joined = np.lib.format.open_memmap(output, "w+", np.uint64, shape)  # type: ignore[no-untyped-call]
    row = first = 0
    for array, (_, samples) in zip(arrays, parts, strict=True):
        joined[row : row + len(array)] = array
        if array.shape[1] > 3:  # the number of the sample, in its shard
            joined[row : row + len(array), 3] += np.uint64(first)
        row, first = row + len(array), first + samples
    joined.flush()


def find_leaks(store: Store, data: Data, sets: Sequence[Manifest]) -> dict[str, Any] | None:
    """Return the manifest's reference, and of each training set how many pictures are a benchmark's, of which.

    None where there is nothing to compare: without benchmarks, or where training pictures are drawn while training.
    """
    stored = [one for one in sets if one.objects]
    train = [one for one in stored if one.name in data.train]
    sought = [one for one in stored if one.name not in (*data.train, *data.val)]
    if not train or not sought:
        return None
    inputs = {use: {one.name: [one.object(name).sha256 for name in (PRINTS, INDEX)] for one in some}
              for use, some in (("train", train), ("sought", sought))}  # fmt: skip
    made, _ = find_or_make(
        store, "shard", "leaks", inputs, lambda folder: _make(store, train, sought, folder), keys.of_leaks()
    )
    digests = {one.name: made.object(f"{one.name}.npy").sha256 for one in train}
    told = {name: {**facts, "digest": digests[name]} for name, facts in made.facts["sets"].items()}
    for name, facts in told.items():
        if facts["found"]:
            of = ", ".join(f"{count:,} of {benchmark}" for benchmark, count in facts["of"].items())
            print(f"shard {name}: {facts['found']:,} pictures are a benchmark's: {of}", flush=True)
    return {"manifest": made.reference, "sets": told}


def _make(store: Store, train: Sequence[Manifest], sought: Sequence[Manifest], folder: Path) -> StageResult:
    """Write for each training set the numbers of the samples found, and draw some beside whose they are."""
    known = [np.load(store.fetch(one.object(PRINTS))) for one in sought]
    benchmark = np.repeat(np.arange(len(known)), [len(prints) for prints in known])
    numbers = np.concatenate([prints[:, 3] for prints in known]).astype(np.int64)
    lookup = Lookup(np.ascontiguousarray(np.concatenate([prints[:, :3] for prints in known])))
    facts, images, labels = dict[str, Any](), list[Picture](), list[str]()
    for one in train:
        rows, near = _looked_up(np.load(store.fetch(one.object(PRINTS)), mmap_mode="r"), lookup)
        np.save(folder / f"{one.name}.npy", rows)
        of = Counter(sought[number].name for number in benchmark[near].tolist())
        facts[one.name] = {"found": len(rows), "of": dict(sorted(of.items()))}
        for row, which in list(zip(rows.tolist(), near.tolist(), strict=True))[: max(0, SHOWN - len(images) // 2)]:
            for manifest, number in ((one, row), (sought[benchmark[which]], int(numbers[which]))):
                image, label = _sample(store, manifest, number)
                images.append(image)
                labels.append(label)
    files = {f"{one.name}.npy": folder / f"{one.name}.npy" for one in train}
    if images:
        (folder / SHEET).write_bytes(contact_sheet(images, labels))
        files[SHEET] = folder / SHEET
    return StageResult(files=files, facts={"sets": facts})


def _looked_up(prints: Any, lookup: Lookup) -> tuple[Numbers, Numbers]:
    """Return the numbers of a training set's samples that are near what is sought, and the nearest's."""
    found = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, len(prints), AT_ONCE):
        rows, near = lookup.near(np.ascontiguousarray(prints[start : start + AT_ONCE]))
        found.append(np.stack([rows + start, near]))
    rows, near = np.concatenate(found, axis=1)
    return rows, near


def _sample(store: Store, manifest: Manifest, number: int) -> tuple[Picture, str]:
    batch = chosen_batch(open_sets([store.fetch(manifest.object(INDEX))]), np.array([number]))
    return to_channels(batch.images[0], 1)[:, :, 0], batch.labels[0]
