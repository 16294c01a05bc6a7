"""Typed reading: YAML and JSON into frozen dataclasses, nested ones too, with errors that name the key."""

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from wordmill.recipe.plain import read_text

MOST_VALUES = 100_000  # of a file
MERGED, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
Section = TypeVar("Section")


def nearest(word: str, known: list[str]) -> str:
    """Return a clause that lists the known words, the one that looks like `word` first."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}known are {', '.join(sorted(known))}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping; ValueError names the file and the line."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: not readable: {error.strerror}") from None
    try:
        document = yaml.load(text, _StrictLoader)  # noqa: S506 (a safe loader's kind)
        _check_size(document, {})
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        told = " ".join(filter(None, (error.context, error.problem)))
        raise ValueError(f"{path}{line}: not readable as YAML: {told}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        told = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not readable as YAML: {told}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path}: expected a mapping of keys to values, found {type(document).__name__}")
    return document


def _check_size(value: Any, sizes: dict[int, int]) -> int:
    """Return how many values one has in it, where aliases stand written out; ValueError for more than MOST_VALUES."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in sizes:
        sizes[id(value)] = MOST_VALUES  # met again before it is counted: it has itself in it
        inner = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_check_size(item, sizes) for item in inner)
    if sizes[id(value)] > MOST_VALUES:
        raise ValueError(f"aliases make more than {MOST_VALUES:,} values of it")
    return sizes[id(value)]


class _StrictLoader(yaml.CSafeLoader):
    """Takes a key once, and texts alone for keys: of two the first would be lost, and `no` would be false."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return a value; a date or a number that is none is an error with its line."""
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping's keys and values."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            mark = key.start_mark
            if key.tag == MERGED:
                continue
            if key.tag != TEXT:
                shown = key.value if isinstance(key.value, str) else "a list or mapping"
                raise yaml.MarkedYAMLError(problem=f"the key {shown} is no text: write it in quotes", problem_mark=mark)
            if key.value in lines:
                told = f"the key '{key.value}' stands on line {lines[key.value]} already"
                raise yaml.MarkedYAMLError(problem=told, problem_mark=mark)
            lines[key.value] = mark.line + 1
        return super().construct_mapping(node, deep)


def parse_section(kind: type[Section], values: Any, where: str) -> Section:
    """Build a section from a mapping; unknown keys, missing keys and wrong types are ValueErrors that name them."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping, found {type(values).__name__} {values!r}")
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ValueError(f"{where}: unknown key '{key}': {nearest(str(key), list(hints))}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise ValueError(f"{where}: key '{field.name}' is missing")
    return kind(**{key: parse_value(value, hints[key], f"{where}.{key}") for key, value in values.items()})


def parse_value(value: Any, kind: Any, where: str) -> Any:
    """Check one value against its annotation and return it in that type."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return parse_section(kind, value, where)  # type: ignore[arg-type]  # is_dataclass lets instances pass too
    if isinstance(kind, UnionType):  # of a type and None
        (given,) = set(get_args(kind)) - {NoneType}
        return None if value is None else parse_value(value, given, where)
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind), where)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, found {type(value).__name__} {value!r}")
        return tuple(parse_value(item, get_args(kind)[0], f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: expected a mapping, found {type(value).__name__} {value!r}")
        key, item = get_args(kind)
        return {parse_value(k, key, f"{where}: key"): parse_value(v, item, f"{where}.{k}") for k, v in value.items()}
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(
            f"{where}: expected {kind.__name__}, found {type(value).__name__} {value!r}{_hint(value, kind)}"
        )
    return value


def _choice(value: Any, known: tuple[Any, ...], where: str) -> Any:
    if value in known and type(value) in {type(item) for item in known}:
        return value
    raise ValueError(f"{where}: found {value!r}: {nearest(str(value), [str(item) for item in known])}")


def _hint(value: Any, kind: Any) -> str:
    """Explain YAML 1.1's reading of 5e-4 as text, the one trap that everybody meets."""
    if kind is not float or not isinstance(value, str):
        return ""
    try:
        float(value)
    except ValueError:
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    return f": to YAML a number with an exponent needs a decimal point, write {mantissa}.0e{exponent}"


def to_json(section: Any) -> str:
    """Return the canonical JSON text of a section, the form in which a stage receives it; a path is its text."""
    return json.dumps(dataclasses.asdict(section), sort_keys=True, default=os.fspath)


def to_struct(section: Any) -> dict[str, Any]:
    """Return a section as the struct that a pipeline's page shows: plain values by key, a path as its text."""
    return dict(json.loads(to_json(section)))


def struct_text(struct: dict[str, Any]) -> str:
    """Return the JSON text of a struct, "" of an empty one; whole numbers are ints, which engines make floats."""
    return json.dumps(_whole(struct), sort_keys=True) if struct else ""


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def from_json(kind: type[Section], text: str) -> Section:
    """Read a section back from the JSON text that a stage received."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"section {kind.__name__.lower()}: not JSON: {error}") from None
    return parse_section(kind, values, f"section {kind.__name__.lower()}")
