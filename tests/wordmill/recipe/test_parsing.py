import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from wordmill.recipe.parsing import from_json, parse_section, read_yaml, struct_text, to_json, to_struct


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


def test_a_struct_gives_back_what_an_engine_that_knows_but_floats_has_made_of_it() -> None:
    assert to_struct(Inner(rate=2.0, names=("a",))) == {"rate": 2.0, "names": ["a"]}
    assert struct_text({"n": 3.0, "rate": 0.5, "list": [1.0, {"m": 2.0}], "on": True}) == (
        '{"list": [1, {"m": 2}], "n": 3, "on": true, "rate": 0.5}'
    )
    assert from_json(Inner, struct_text(to_struct(Inner(rate=2.0)))) == Inner(rate=2.0)
    assert struct_text({}) == ""


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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2015:\n  source: x\n", "line 1: not readable as YAML: the key 2015 is no text: write it in quotes"),
        ("words:\n  no: 1\n", "line 2: not readable as YAML: the key no is no text: write it in quotes"),
        ("~: 1\n", "line 1: not readable as YAML: the key ~ is no text"),
        ("? [a, b]\n: 1\n", "line 1: not readable as YAML: the key a list or mapping is no text"),
        ("a: 1\nb: 2\na: 3\n", "line 3: not readable as YAML: the key 'a' stands on line 1 already"),
        ("a:\n  b: 1\n  b: 1\n", "line 3: not readable as YAML: the key 'b' stands on line 2 already"),
        ("a: [1\n", "line 2: not readable as YAML: "),
        ("a: !!python/name:os.system\n", "line 1: not readable as YAML: could not determine a constructor"),
        ("é: 1\n".encode("latin-1"), "line 1: not UTF-8: as cp1252 it reads 'é: 1'"),
        ("\na: " + "[" * 5000, ""),
        ("a: 1\nb: 2020-13-45\n", "line 2: not readable as YAML: month must be in 1..12"),
        ("a: 1\nb:\n- " + "9" * 5000, "line 3: not readable as YAML: Exceeds the limit"),
        ("a: &a [*a]\n", "not readable as YAML: aliases make more than 100,000 values of it"),
        ("".join(f"k{n}: &k{n} [{','.join([f'*k{n - 1}' if n else 'x'] * 9)}]\n" for n in range(9)),
         "not readable as YAML: aliases make more than 100,000 values of it"),
    ],
)  # fmt: skip
def test_a_yaml_file_that_is_wrong_is_told_by_its_line(text: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"^{path}(, |: ){told}") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}: not readable: Is a directory$"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_yaml_is_read_in_what_its_byte_order_mark_says(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: &x {b: é}\r\nc:\r\n  <<: *x\r\n  b: 2\r\n", encoding)
    assert read_yaml(tmp_path / "mine.yaml") == {"a": {"b": "é"}, "c": {"b": 2}}
