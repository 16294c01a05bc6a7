"""The weights that come with the project, in half precision: the recipe `small`, trained on rendered words alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from wordmill.models.checkpoint import Checkpoint, save
from wordmill.store.files import write_atomically
from wordmill.store.storage import hash_file

PRETRAINED = "small"  # the recipe
FITTING = (PRETRAINED, "quickstart")  # recipes of the same recogniser
WEIGHTS = Path(__file__).parent / "weights" / f"{PRETRAINED}.safetensors"
FACTS = WEIGHTS.with_suffix(".json")  # what the weights were made of, and what they read


def pretrained(recipe: str) -> Path | None:
    """Return the file of weights that stand in for a recipe's champion until it has one, None for most recipes."""
    return WEIGHTS if recipe in FITTING else None


def save_halved(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint with its weights rounded to float16."""
    with np.errstate(over="ignore"):  # it is told below, by name
        halved = {name: values.astype(np.float16) for name, values in checkpoint.tensors.items()}
    if wrong := sorted(name for name, values in halved.items() if not np.isfinite(values).all()):
        raise ValueError(f"{path}: beyond the range of float16: {', '.join(wrong)}")
    save(path, dataclasses.replace(checkpoint, tensors=halved))  # type: ignore[arg-type]


def write_facts(facts: dict[str, Any]) -> None:
    """Write what is known of the weights beside them, with their digest."""
    told = {"sha256": hash_file(WEIGHTS), "bytes": WEIGHTS.stat().st_size, **facts}
    write_atomically(FACTS, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
