"""The catalogue of data sets: where each comes from, how it is read, and how many samples it must have.

A source is a URI. In https and s3 ones `{00..63}` stands for numbered files, and s3 ones that end in `/` for all
objects below. `manual:` is what people must get themselves; `manual:words.zip` names an archive, in which several
data sets may stand, each in its folder `inside`.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from wordmill.recipe.parsing import nearest, parse_section, read_yaml

SCHEMES = ("file", "http", "https", "s3", "synth", "manual")
NAME = re.compile(r"[A-Za-z0-9_.-]+")


LEAST = 30  # samples of which some can be held out
Split = Literal["train", "val", "test"]
LabelFormat = Literal["space", "dtrb", "icdar", "paddleocr", "csv", "jsonl"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set."""

    source: str
    reader: Literal["synth", "label_file", "lmdb", "fsns"]
    samples: int
    licence: str
    sha256: str = ""  # of the file, or of what sha256sum prints for several files; empty: what the first use finds
    inside: str = ""  # the folder in the archive; what stands before it in the archive's paths does not matter
    labels: str = ""  # label_file: the file with paths and labels, inside the archive
    label_format: LabelFormat = "space"
    # Of all that is found there, what is learnt from, validated on or held out to measure on; samples are the part's.
    part: Literal["", "train", "val", "test"] = ""
    citation: str = ""
    homepage: str = ""
    steps: str = ""  # what to do where no program can download
    stands_for: tuple[str, ...] = ()  # the sets in whose place it is taken in a smoke run

    @property
    def archive(self) -> str:
        """The name of the archive that people must get, "" where it has none."""
        return self.source.removeprefix("manual:") if self.source.startswith("manual:") else ""


def load_catalogue(paths: Sequence[Path]) -> dict[str, Entry]:
    """Read catalogue files; a later one adds data sets and gives a source to those that are `manual:` before it."""
    raw: dict[str, dict[str, Any]] = {}
    origin: dict[str, Path] = {}
    for path in paths:
        for name, values in read_yaml(path).items():
            if not isinstance(values, dict):
                raise ValueError(f"{path}: {name}: expected a mapping, found {type(values).__name__}")
            before = raw.get(name, {})
            if before and not str(before.get("source")).startswith("manual:"):
                raise ValueError(f"data set '{name}' stands in {origin[name]} and again in {path}: rename one of them")
            raw[name], origin[name] = before | ({"inside": ""} if before else {}) | values, path
    return {name: _entry(name, values, str(origin[name])) for name, values in raw.items()}


def local_path(source: str) -> Path:
    """Return the path of a `file:` address: as it is written, else with %20 and its like as characters."""
    path = source.removeprefix("file:")
    if path.startswith("//"):
        machine, _, rest = path[2:].partition("/")
        path = f"/{rest}" if machine in ("", "localhost") else ""
    if not path.startswith("/"):
        raise ValueError(f"'{source}': expected an absolute path behind file://, as in file:///data/words.zip")
    return Path(path) if Path(path).exists() else Path(unquote(path))


def select(catalogue: dict[str, Entry], names: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of these names, each once, in this order; ValueError for an unknown name."""
    for name in names:
        if name not in catalogue:
            raise ValueError(f"unknown data set '{name}': {nearest(name, list(catalogue))}")
    return {name: catalogue[name] for name in names}


def redirect(catalogue: dict[str, Entry], places: Sequence[str]) -> dict[str, Entry]:
    """Give data sets other sources: `NAME=PLACE`, a path or a URI, as `--from` has them.

    NAME is a data set, which then fills the place alone, or an archive that people must get, for all data sets in it.
    """
    changed = dict(catalogue)
    for text in places:
        name, sign, place = text.partition("=")
        if not sign or not place:
            raise ValueError(f"--from '{text}': expected NAME=PLACE such as mj_train=/data/mj")
        source = place if "://" in place else Path(place).expanduser().absolute().as_uri()
        same = {key: entry for key, entry in catalogue.items() if entry.archive == name}
        if name in catalogue:
            same = {name: dataclasses.replace(catalogue[name], inside="", sha256="")}
        if not same:
            known = [*catalogue, *sorted({entry.archive for entry in catalogue.values() if entry.archive})]
            raise ValueError(f"--from '{text}': unknown data set '{name}': {nearest(name, known)}")
        for key, entry in same.items():
            changed[key] = dataclasses.replace(entry, source=source)
            _check(changed[key], f"--from '{text}': {key}")
    return changed


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
    _check(entry, place)
    return entry


def _check(entry: Entry, place: str) -> None:
    scheme = urlsplit(entry.source).scheme
    if scheme not in SCHEMES:
        raise ValueError(f"{place}.source: found '{entry.source}', expected a URI of one of {', '.join(SCHEMES)}")
    if scheme == "file":
        try:
            local_path(entry.source)
        except ValueError as error:
            raise ValueError(f"{place}.source: {error}") from None
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
