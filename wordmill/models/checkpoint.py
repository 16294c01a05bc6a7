"""Checkpoints: weights as safetensors under PyTorch's names, with the recipe sections that made them inside."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wordmill.recipe.parsing import from_json, to_json
from wordmill.recipe.sections import Data, Model, Train
from wordmill.store.files import atomic_file, usual_mode
from wordmill.text.charset import charset_of

# One key for everything: safetensors writes several in an order that differs from run to run.
KEY = "wordmill"
NAMED = 8  # weights in a message

Tensors = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights by name (float32), the recipe sections that they belong to, and the temperature of their confidences."""

    tensors: Tensors
    data: Data
    model: Model
    train: Train
    step: int
    temperature: float = 1.0
    symbols: str = ""  # the characters of its classes, in order, as they were when it was saved


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under a temporary name, then rename it."""
    sections = {"data": checkpoint.data, "model": checkpoint.model, "train": checkpoint.train}
    numbers = {"step": checkpoint.step, "temperature": checkpoint.temperature}
    made_by = {name: to_json(section) for name, section in sections.items()} | numbers
    made_by["symbols"] = charset_of(checkpoint.data).symbols
    write_tensors(path, checkpoint.tensors, {KEY: json.dumps(made_by)})


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole or not at all, for whom the umask lets."""
    with atomic_file(path) as temporary:
        mode = usual_mode(temporary)
        # safetensors writes the memory as it lies: an array with other strides would become another one.
        save_file({name: np.asarray(values, order="C") for name, values in tensors.items()}, temporary, metadata)
        temporary.chmod(mode)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, float16 as float32; ValueError for a file that is none."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from None
    if KEY not in metadata:
        raise ValueError(f"{path}: no checkpoint of this project: its metadata has no key '{KEY}'")
    try:
        made_by = json.loads(metadata[KEY])
        data, model = from_json(Data, made_by["data"]), from_json(Model, made_by["model"])
        train, step = from_json(Train, made_by["train"]), int(made_by["step"])
        temperature = float(made_by.get("temperature", 1.0))  # files of before have neither
        symbols = str(made_by.get("symbols", ""))
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}, expected a positive number")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
        raise ValueError(f"{path}: no checkpoint of this project: its metadata is damaged: {told}") from None
    halves = {name: values.astype(np.float32) for name, values in found.items() if values.dtype == np.float16}
    return Checkpoint(tensors=found | halves, data=data, model=model, train=train, step=step, temperature=temperature,
                      symbols=symbols)  # fmt: skip


def check_fit(expected: dict[str, tuple[int, ...]], tensors: Tensors, where: str) -> None:
    """Refuse weights that do not fit a model: every name and shape must be there, and nothing else."""
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(set(tensors) - set(expected))
    wrong = sorted(name for name in set(expected) & set(tensors) if tensors[name].shape != expected[name])
    if missing or surplus or wrong:
        shapes = [f"{name} is {tensors[name].shape}, expected {expected[name]}" for name in wrong]
        found = f"missing {names_text(missing)}, surplus {names_text(surplus)}, shapes {names_text(shapes)}"
        raise ValueError(f"{where}: weights do not fit the model: {found}")


def names_text(names: Iterable[str]) -> str:
    """Return names as a list for people: of many the first ones, and how many more there are."""
    all_of_them = list(names)
    more = f" and {len(all_of_them) - NAMED} more" if len(all_of_them) > NAMED else ""
    return f"{all_of_them[:NAMED]}{more}"
