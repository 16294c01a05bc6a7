import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from wordmill.recipe.parsing import from_json, parse_section, to_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    names: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    path: Path
    folder: Path | None = None
    spare: Inner | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


WHOLE = Outer(inner=Inner(rate=0.5, names=("a", "b")), path=Path("/a b/c"), folder=Path("d"), spare=Inner(rate=2.0),
              facts={"x": [1, None, {"y": "z"}]})  # fmt: skip


@pytest.mark.parametrize("section", [WHOLE, Outer(inner=Inner(rate=1.0), path=Path("p"))])
def test_sections_nest_and_read_back_as_they_were_written(section: Outer) -> None:
    assert from_json(Outer, to_json(section)) == section


def test_nested_sections_are_objects_and_paths_are_texts() -> None:
    assert json.loads(to_json(WHOLE)) == {
        "inner": {"rate": 0.5, "names": ["a", "b"]}, "path": "/a b/c", "folder": "d",
        "spare": {"rate": 2.0, "names": []}, "facts": {"x": [1, None, {"y": "z"}]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"rate": "1"}, "path": "p"}, r"x\.inner\.rate: expected float, found str '1'"),
        ({"inner": {"rte": 1.0}, "path": "p"}, r"x\.inner: unknown key 'rte': did you mean 'rate'"),
        ({"inner": {}, "path": "p"}, r"x\.inner: key 'rate' is missing"),
        ({"inner": "{}", "path": "p"}, r"x\.inner: expected a mapping, found str '{}'"),
        ({"inner": {"rate": 1}, "path": 3}, r"x\.path: expected Path, found int 3"),
        ({"inner": {"rate": 1}, "path": "p", "folder": 3}, r"x\.folder: expected Path, found int 3"),
        ({"inner": {"rate": 1}, "path": "p", "spare": {"rate": None}}, r"x\.spare\.rate: expected float, found None"),
        ({"inner": None, "path": "p"}, r"x\.inner: expected a mapping, found NoneType None"),
    ],
)
def test_an_error_names_the_key_however_deep_it_lies(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_section(Outer, values, "x")
