"""The shard stage: packs every fetched data set into LMDB shards of pictures as recognisers read them."""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from components import keys
from components.shard.leaks import find_leaks, join_prints
from components.shard.packing import Rules, Task
from components.shard.pieces import PRINTS, pieces
from components.shard.summary import Summary, quarantine_sheet, samples_sheet
from wordmill.pictures.image import PICTURE_KEYS
from wordmill.readers.opening import open_reader
from wordmill.recipe.catalogue import Entry
from wordmill.recipe.parsing import from_json, parse_section
from wordmill.recipe.sections import Data
from wordmill.shards.blocks import shard_samples
from wordmill.shards.index import INDEX, Index
from wordmill.shards.sets import open_sets
from wordmill.sources.archives import lay_out
from wordmill.store.artifacts import Manifest, read_manifest, whole_manifest
from wordmill.store.files import require_space
from wordmill.store.keys import Ingredients
from wordmill.store.progress import Progress
from wordmill.store.stages import StageResult, find_or_make, run_stage
from wordmill.store.storage import Store
from wordmill.text.charset import charset_of

READING = ("reader", "samples", "labels", "label_format", "inside", "part")  # keys of an entry
SAMPLES, QUARANTINE, QUARANTINE_SHEET = "contact_sheet.png", "quarantine.json", "quarantine.png"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A fetched data set, what becomes of it, and all that its shards depend on."""

    name: str
    entry: Entry
    fetched: str
    rules: Rules
    limit: int
    inputs: dict[str, Any]

    @property
    def ingredients(self) -> Ingredients:
        """What decides on its shards beside that."""
        return keys.of_shard(self.entry.reader)


def run(*, data: str, sources: str, run_tag: str, output: str) -> str:
    """Pack data sets into shards.

    data: JSON of the recipe's data section. sources: the fetch stage's manifest. output: where this one goes.
    """

    def work(store: Store) -> tuple[Manifest, bool]:
        section, fetched = from_json(Data, data), read_manifest(sources)
        if both := sorted(set(section.train) & set(section.val)):
            raise ValueError(f"data set '{both[0]}' is in data.train and in data.val: a set is for one of them")
        packed = [_shard(store, section, fetched, name) for name in fetched.facts["datasets"]]
        sets = [manifest for manifest, _ in packed]
        # What tells a data set and its blocks from all others is its index's digest, or what draws it.
        indices = {one.name: one.object(INDEX).sha256 if one.objects else one.reference for one in sets}
        facts = {"datasets": {one.name: one.reference for one in sets}, "indices": indices,
                 "contents": {one.name: one.facts["content"] for one in sets},
                 "leaks": find_leaks(store, section, sets)}  # fmt: skip
        combined, _ = find_or_make(store, "shard", "datasets", facts, lambda folder: StageResult(files={}, facts=facts))
        reused = {name: text for one in sets for name, text in one.reused.items()}
        return replace(combined, reused=reused), all(found for _, found in packed)

    return run_stage("shard", "datasets", run_tag, output, work)


def _shard(store: Store, data: Data, fetched: Manifest, name: str) -> tuple[Manifest, bool]:
    training = name in data.train
    entry = parse_section(Entry, fetched.facts["entries"][name], f"{fetched.reference}: {name}")
    rules = Rules(data=data, charset=charset_of(data), training=training)
    limit = data.limit if training else 0
    reference = fetched.facts["datasets"][name]
    if training and data.streamed:
        return _streamed(store, data, name, entry, reference)
    inputs = {
        "source": reference,
        "reading": {key: getattr(entry, key) for key in READING},
        "picture": {key: getattr(data, key) for key in (*PICTURE_KEYS, "stored")},
        "symbols": rules.charset.symbols, "training": training,
        "labels": {"policy": data.label_policy, "longest": data.max_label} if training else {}, "limit": limit,
    }  # fmt: skip
    data_set = DataSet(name=name, entry=entry, fetched=reference, rules=rules, limit=limit, inputs=inputs)
    return find_or_make(store, "shard", name, inputs, partial(_make, store, data_set), data_set.ingredients)


def _streamed(store: Store, data: Data, name: str, entry: Entry, reference: str) -> tuple[Manifest, bool]:
    """Note that a training set is drawn while training: nothing is packed."""
    if entry.reader != "synth":
        raise ValueError(f"data.streamed: data set '{name}' ({entry.source}) is stored, expected one from synth://")
    picture = {key: getattr(data, key) for key in PICTURE_KEYS}
    inputs = {"source": reference, "picture": picture, "streamed": True, "limit": data.limit}
    facts = {"address": entry.source, "samples": min(entry.samples, data.limit or entry.samples), "content": ""}
    return find_or_make(store, "shard", name, inputs, lambda folder: StageResult(files={}, facts=facts))


def _make(store: Store, data_set: DataSet, folder: Path) -> StageResult:
    try:
        return _packed_set(store, data_set, _unpacked(store, data_set, folder), folder)
    except ValueError as error:
        raise ValueError(f"data set '{data_set.name}' ({data_set.entry.source}): {error}") from error
    except RuntimeError as error:
        raise RuntimeError(f"data set '{data_set.name}' ({data_set.entry.source}): {error}") from error


def _unpacked(store: Store, data_set: DataSet, folder: Path) -> Path:
    """Return the folder with a data set's files; it is empty for one that is rendered."""
    manifest, root = whole_manifest(store, data_set.fetched, data_set.name), folder / "source"
    if manifest.objects:
        files = {item.name: store.fetch(item) for item in manifest.objects}
        lay_out(files, root, data_set.entry.inside, source=PurePosixPath(data_set.entry.source).name)
    return root


def _packed_set(store: Store, data_set: DataSet, root: Path, folder: Path) -> StageResult:
    reader = open_reader(data_set.entry, root)
    samples = len(reader)
    if samples != data_set.entry.samples:
        raise ValueError(f"expected {data_set.entry.samples} samples, found {samples}: is the source whole?")
    count = min(samples, data_set.limit or samples)
    needed = _bytes_needed(data_set.rules, root, count, samples)
    told = [f"{count:,} samples, {needed:,} bytes in shards", *reader.notes]
    print("".join(f"shard {data_set.name}: {line}\n" for line in told), end="", flush=True)
    progress, made_by = Progress(f"shard {data_set.name}", count, "images"), dict[str, None]()
    parts, prints = list[Index](), list[tuple[Path, int]]()
    tasks = _tasks(data_set, root, count)
    making = closing(pieces(store, data_set.name, data_set.inputs, data_set.ingredients, tasks))
    whole = require_space(f"shards of {count:,} samples", folder, needed)
    with whole, Summary(folder / QUARANTINE, count, data_set.rules.charset) as summary, making as made:
        for piece in made:
            summary.add(piece)
            made_by |= dict.fromkeys(piece.made_by)
            if piece.facts["samples"]:
                parts.append(Index.load(store.fetch(piece.object(INDEX))))
                prints.append((store.fetch(piece.object(PRINTS)), piece.facts["samples"]))
            aside = f"{summary.quarantined:,} put aside" if summary.quarantined else ""
            progress.update(piece.inputs["samples"][1], aside)
        facts = summary.facts()
    join_prints(prints, folder / PRINTS)
    if data_set.rules.training and (lacking := summary.outside_text(data_set.name, data_set.rules.charset.name)):
        print(f"shard {data_set.name}: {lacking}", flush=True)
    return replace(_made(data_set, Index.join(parts), facts, root, folder), made_by=tuple(made_by))


def _bytes_needed(rules: Rules, root: Path, count: int, samples: int) -> int:
    """Return how many bytes the pictures of `count` out of all samples take: about, where their files are stored."""
    height, width, channels = rules.shape
    files = [path for path in root.rglob("*") if path.is_file()] if rules.encoded else []
    if files:
        return sum(path.stat().st_size for path in files) * count // samples
    return count * height * width * channels


def _tasks(data_set: DataSet, root: Path, count: int) -> list[Task]:
    size = shard_samples(data_set.rules.shape)
    return [Task(entry=data_set.entry, root=root, start=start, stop=min(start + size, count),
                 path=Path(f"{number:05}.lmdb"), rules=data_set.rules)
            for number, start in enumerate(range(0, count, size))]  # fmt: skip


def _made(data_set: DataSet, index: Index, facts: dict[str, Any], root: Path, folder: Path) -> StageResult:
    """Draw the sheets, and give back what is beside the shards, which are stored."""
    index.save(folder / INDEX)
    (folder / SAMPLES).write_bytes(samples_sheet(open_sets([folder / INDEX])))
    files = [INDEX, SAMPLES, PRINTS]
    if facts["quarantined"]:
        reader, data = open_reader(data_set.entry, root), data_set.rules.data
        (folder / QUARANTINE_SHEET).write_bytes(quarantine_sheet(facts["quarantine"], reader, data))
        files += [QUARANTINE, QUARANTINE_SHEET]
    facts |= {"shape": list(data_set.rules.shape), "content": index.content}
    return StageResult(files={name: folder / name for name in files}, stored=index.objects, facts=facts)
