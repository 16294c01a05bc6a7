"""Where a training run goes on: its newest whole checkpoint, in its folder or in the store."""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import OPERATION, Data, Model, Train
from wordmill.store.storage import Store
from wordmill.training.state import check_state, read_record, records

# Of data, that training itself reads.
DATA_KEYS = ("charset", "space", "height", "width", "channels", "middle", "shares", "fractions", "epoch_samples")
UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}  # in seconds

Sections = tuple[Data, Model, Train]


def prefix_of(key: str) -> str:
    """Return the prefix in the store below which a run's checkpoints lie as in their folder."""
    return f"checkpoints/{key}/"


def train_inputs(train: Train) -> dict[str, Any]:
    """Return the keys of train that results depend on."""
    return {name: value for name, value in dataclasses.asdict(train).items() if name not in OPERATION}


def newest(store: Store, key: str, folder: Path, sections: Sections, afresh: bool) -> Path | None:
    """Return the record of the newest whole checkpoint, brought into `folder` where it lies in the store alone.

    None where there is none. One that is not whole is told and removed; ValueError for one of another recipe. The
    store, which may be away, is asked where the run is taken up `afresh`, or what the folder has is not whole.
    """
    had = bool(records(folder))
    for ask in (True,) if afresh else (False, True) if had else ():
        stored = {address.removeprefix(prefix_of(key)) for address in store.keys(prefix_of(key))} if ask else set()
        had = had or any(name.endswith(".json") for name in stored)
        for record in _whole(store, key, folder, stored):
            _check_recipe(record, sections)
            return record
    if had:
        print("warning: no checkpoint is whole: training begins from the start", flush=True)
    return None


def kept_parts(store: Store, key: str, folder: Path) -> int:
    """Return the parts of a batch that a half-done run goes by, here or in the store; 0 where there is none."""
    for record in records(folder):
        with suppress(ValueError):
            return int(read_record(record)["recipe"]["train"]["accumulation"])
    for address in sorted(store.keys(prefix_of(key)), reverse=True):
        if address.endswith(".json"):
            return int((store.get_json(address) or {})["recipe"]["train"]["accumulation"])
    return 0


def _whole(store: Store, key: str, folder: Path, stored: set[str]) -> Iterator[Path]:
    """Give the whole checkpoints, the newest first, and of two of a step that of the folder first."""
    here = {path.name for path in records(folder)}
    for name in sorted(here | {name for name in stored if name.endswith(".json")}, reverse=True):
        if name in here and _is_whole(folder / name):
            yield folder / name
        if name in stored:
            _bring(store, key, folder / name, stored)
            if _is_whole(folder / name):
                yield folder / name
            else:
                store.delete(prefix_of(key) + name)


def _is_whole(record: Path) -> bool:
    """Tell whether a checkpoint's files are as its record says; the record of one that is not is removed."""
    try:
        check_state(record)
    except ValueError as error:
        print(f"warning: this checkpoint is left out, training goes on from the one before: {error}", flush=True)
        record.unlink(missing_ok=True)
        return False
    return True


def _bring(store: Store, key: str, record: Path, stored: set[str]) -> None:
    """Read a checkpoint's files from the store, as far as they are there."""
    store.download(prefix_of(key) + record.name, record)
    try:
        names = [entry["name"] for entry in read_record(record)["files"]]
    except ValueError:
        return  # whoever checks it says so
    for name in names:
        if name in stored:
            store.download(prefix_of(key) + name, record.with_name(name))


def _check_recipe(record: Path, sections: Sections) -> None:
    """Refuse a checkpoint that other data forms, another recogniser or another training have made."""
    recipe = read_record(record)["recipe"]
    data, model, train = (json.loads(to_json(section)) for section in sections)  # as the record has them
    expected = {"data": {name: data[name] for name in DATA_KEYS}, "model": model, "train": train}
    for section, values in expected.items():
        for name in values.keys() - set(OPERATION):
            if (found := recipe[section].get(name)) != values[name]:
                raise ValueError(f"{record}: recipe: {section}.{name}: found {found!r}, expected {values[name]!r}: "
                                 "it is of another training")  # fmt: skip


def codes_of(attempts: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Return the digests of the code that attempts of a run were made by, each once, in order."""
    return tuple(dict.fromkeys(attempt.get("code", "") for attempt in attempts))


def step_of(record: Path | None) -> int:
    """Return the steps that a checkpoint has behind it; 0 without one."""
    return 0 if record is None else int(read_record(record)["progress"]["step"])


def described(record: Path) -> str:
    """Return where a checkpoint stands, when it was made and by how many processes."""
    document = read_record(record)
    step, processes = document["progress"]["step"], document["processes"]
    lines = record.with_name(f"metrics-{step:08}.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    return (f"step {step:,} of {last['steps']:,} (checkpoint of {_counted(time.time() - last['time'])} ago, "
            f"made with {processes} process{'es' if processes > 1 else ''})")  # fmt: skip


def _counted(seconds: float) -> str:
    """Return a time in its largest unit: 4 minutes."""
    unit, size = next((item for item in UNITS.items() if seconds >= item[1]), ("second", 1))
    count = max(0, int(seconds // size))
    return f"{count} {unit}{'' if count == 1 else 's'}"
