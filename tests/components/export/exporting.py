"""The export stage run for one format, and what it leaves in the store."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.export.stage import run
from wordmill.recipe.parsing import to_json
from wordmill.recipe.sections import Export
from wordmill.store.artifacts import Manifest, read_manifest
from wordmill.store.storage import Store


def export(export_format: str, model: str, folder: Path, **keys: Any) -> Manifest:
    """Run the stage for one format, with other keys of `export` where they are given."""
    output = folder / f"{export_format}.json"
    settings = Export(**{"formats": (export_format,), **keys})
    run(export_format=export_format, export=to_json(settings), model=model, run_tag="r1", output=str(output))
    return read_manifest(output)


def failure(export_format: str, model: str, folder: Path, **keys: Any) -> str:
    """Return what the stage says where it fails."""
    with pytest.raises(SystemExit):
        export(export_format, model, folder, **keys)
    return str(json.loads((folder / "error.json").read_text())["error"])


def names(made: Manifest) -> list[str]:
    return [entry.name for entry in made.objects]


def text_of(store: Store, made: Manifest, name: str) -> str:
    return store.fetch(made.object(name)).read_text(encoding="utf-8")
