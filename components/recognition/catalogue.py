"""The catalogue of data sets: where each comes from, how it is read, and how many samples it must have."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from components.recognition.recipe import nearest, parse_section, read_yaml

SCHEMES = ("file", "http", "https", "s3", "synth", "manual")
NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set; `source` is a URI, or `manual:` where people must get the data themselves."""

    source: str
    reader: Literal["synth", "label_file", "lmdb"]
    samples: int
    licence: str
    sha256: str = ""  # of the archive; empty: not known
    labels: str = ""  # label_file: the file with paths and labels, inside the archive
    label_format: Literal["space", "tab", "icdar"] = "space"
    citation: str = ""
    homepage: str = ""


def load_catalogue(paths: Sequence[Path]) -> dict[str, Entry]:
    """Read catalogue files; a later one adds data sets and gives a source to those that are `manual:` before it."""
    raw: dict[str, dict[str, Any]] = {}
    origin: dict[str, Path] = {}
    for path in paths:
        for name, values in read_yaml(path).items():
            if not isinstance(values, dict):
                raise ValueError(f"{path}: {name}: expected a mapping, found {type(values).__name__}")
            before = raw.get(name, {})
            if before and before.get("source") != "manual:":
                raise ValueError(f"data set '{name}' stands in {origin[name]} and again in {path}: rename one of them")
            raw[name], origin[name] = before | values, path
    return {name: _entry(name, values, str(origin[name])) for name, values in raw.items()}


def select(catalogue: dict[str, Entry], names: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of these names, each once, in this order; ValueError for an unknown name."""
    for name in names:
        if name not in catalogue:
            raise ValueError(f"unknown data set '{name}': {nearest(name, list(catalogue))}")
    return {name: catalogue[name] for name in names}


def to_text(entries: dict[str, Entry]) -> str:
    """Return entries as the JSON text that the fetch stage receives."""
    return json.dumps({name: dataclasses.asdict(entry) for name, entry in entries.items()}, sort_keys=True)


def from_text(text: str) -> dict[str, Entry]:
    """Read entries back from their JSON text."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"sources: not JSON: {error}") from None
    if not isinstance(document, dict) or not document:
        raise ValueError("sources: expected a mapping of data set names to catalogue entries, at least one")
    return {name: _entry(name, values, "sources") for name, values in document.items()}


def _entry(name: str, values: Any, where: str) -> Entry:
    place = f"{where}: {name}"
    if not NAME.fullmatch(name):
        raise ValueError(f"{place}: a data set's name may hold letters, digits, '_', '.' and '-' only")
    entry = parse_section(Entry, values, place)
    scheme = urlsplit(entry.source).scheme
    if scheme not in SCHEMES:
        raise ValueError(f"{place}.source: found '{entry.source}', expected a URI of one of {', '.join(SCHEMES)}")
    if (entry.reader == "synth") != (scheme == "synth"):
        raise ValueError(
            f"{place}.reader: found '{entry.reader}' with a {scheme}: source; synth goes with synth:// alone"
        )
    if (entry.reader == "label_file") != bool(entry.labels):
        raise ValueError(f"{place}.labels: found '{entry.labels}' with reader {entry.reader}: a label_file needs one")
    if entry.samples < 1:
        raise ValueError(f"{place}.samples: found {entry.samples}, expected at least 1")
    if entry.sha256 and not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
        raise ValueError(f"{place}.sha256: found '{entry.sha256}', expected 64 lower-case hexadecimal digits")
    return entry
