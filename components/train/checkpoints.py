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
from wordmill.training.state import check_state, is_record, named_step, read_record, records

# Of data, that training itself reads.
DATA_KEYS = ("charset", "space", "height", "width", "channels", "middle", "shares", "fractions", "epoch_samples")
UNITS = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}  # in seconds

Sections = tuple[Data, Model, Train]


def place_in_store(resume: str, code: str, processes: int) -> str:
    """Return the place below checkpoints/ of what this code keeps with so many processes of what `resume` identifies.

    Runs that may be alive at the same time write, and remove, nothing of each other's.
    """
    return f"{resume}/{code[:16]}.{processes}"


def prefix_of(place: str) -> str:
    """Return the prefix in the store below which a run's checkpoints lie as in their folder."""
    return f"checkpoints/{place}/"


def train_inputs(train: Train) -> dict[str, Any]:
    """Return the keys of train that results depend on."""
    return {name: value for name, value in dataclasses.asdict(train).items() if name not in OPERATION}


def newest(store: Store, place: str, folder: Path, sections: Sections, afresh: bool) -> Path | None:
    """Return the record of the newest whole checkpoint, brought into `folder` where it lies in the store alone.

    Those of other code, which have other places beside this one, come last. None where there is none. One that is not
    whole is told, and removed where it is this place's; ValueError for one of another recipe. The store, which may be
    away, is asked where the run is taken up `afresh`, or what the folder has is not whole.
    """
    had = bool(records(folder))
    for ask in (True,) if afresh else (False, True) if had else ():
        stored = stored_files(store, _resume(place)) if ask else set()
        had = had or any(is_record(name) for _, name in stored)
        for record in _whole(store, place, folder, stored):
            _check_recipe(record, sections)
            return record
    if had:
        print("warning: no checkpoint is whole: training begins from the start", flush=True)
    return None


def kept_parts(store: Store, resume: str, folder: Path) -> int:
    """Return the parts of a batch that a half-done run goes by, here or in the store; 0 where there is none."""
    for record in records(folder):
        with suppress(ValueError):
            return int(read_record(record)["recipe"]["train"]["accumulation"])
    stored = [(name, place) for place, name in stored_files(store, resume) if is_record(name)]
    for name, place in sorted(stored, reverse=True):
        with suppress(KeyError, TypeError, ValueError):
            return int(json.loads(store.get_bytes(prefix_of(place) + name) or b"")["recipe"]["train"]["accumulation"])
    return 0


def stored_files(store: Store, within: str) -> set[tuple[str, str]]:
    """Return (place, name) of the checkpoints' files in the store at a place or all below; others are left alone."""
    found = set()
    for address in store.keys(prefix_of(within)):
        place, _, name = address.removeprefix("checkpoints/").rpartition("/")
        if named_step(name) is not None:
            found.add((place, name))
    return found


def _resume(place: str) -> str:
    return place.partition("/")[0]


def _code(place: str) -> str:
    """Return the beginning of the digest of the code that has this place."""
    return place.partition("/")[2].partition(".")[0]


def _whole(store: Store, own: str, folder: Path, stored: set[tuple[str, str]]) -> Iterator[Path]:
    """Give the whole checkpoints, the newest first, and of two of a step that of the folder, then of this place first.

    The order is that of (made by this code, step, here, at this place).
    """
    ranked = [(_made_by(path) == _code(own), path.name, True, False, "") for path in records(folder)]
    ranked += [(_code(place) == _code(own), name, False, place == own, place)
               for place, name in stored if is_record(name)]  # fmt: skip
    for _, name, is_here, is_own, place in sorted(ranked, reverse=True):
        if not is_here:
            _bring(store, place, folder / name, {file for at, file in stored if at == place})
        if _is_whole(folder / name):
            yield folder / name
        elif is_own:
            store.delete(prefix_of(place) + name)


def _made_by(record: Path) -> str:
    """Return the beginning of the digest of the code that has made a checkpoint last, "" for none that can be read."""
    with suppress(ValueError):
        codes = codes_of(read_record(record)["progress"]["attempts"])
        return codes[-1][:16] if codes else ""
    return ""


def _is_whole(record: Path) -> bool:
    """Tell whether a checkpoint's files are as its record says; the record of one that is not is removed."""
    try:
        check_state(record)
    except ValueError as error:
        print(f"warning: this checkpoint is left out, training goes on from the one before: {error}", flush=True)
        record.unlink(missing_ok=True)
        return False
    return True


def _bring(store: Store, place: str, record: Path, stored: set[str]) -> None:
    """Read a checkpoint's files from the store, as far as they are there."""
    store.download(prefix_of(place) + record.name, record)
    try:
        names = [entry["name"] for entry in read_record(record)["files"]]
    except ValueError:
        return  # whoever checks it says so
    for name in names:
        if name in stored:
            store.download(prefix_of(place) + name, record.with_name(name))


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
