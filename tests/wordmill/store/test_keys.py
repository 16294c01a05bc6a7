from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wordmill.store import keys
from wordmill.store.keys import CANN, Ingredients, changed_ingredients, machine, meanings, source_files, version_of

MODULE = '''"""A module."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wordmill.text.charset import Charset

if TYPE_CHECKING:
    from pathlib import Path

Names = dict[str, int]
LONGEST = 25  # characters


@dataclass
class Box:
    """A box."""

    width: int
    height: int = 1
    CORNERS: ClassVar[int] = 4


def area(box: Box, scale: float = 1.0) -> float:
    """Return the area."""
    # Never negative.
    found: float = box.width * box.height
    if found < 0:
        print(f"negative: {found}")
        raise ValueError(f"{box}: {found}") from None
    return found * scale
'''

SAME = {
    "a comment": ("# Never negative.", "# It is never negative, as it happens."),
    "a docstring": ('"""Return the area."""', '"""Give the area."""'),
    "no docstring": ('    """A box."""\n\n', ""),
    "a layout": ("found * scale", "(\n        found\n        * scale\n    )"),
    "annotations": ("box: Box, scale: float = 1.0) -> float:", 'box: "Box", scale: int = 1.0) -> "Names":'),
    "an annotated variable": ("found: float = box", "found = box"),
    "a field's type": ("width: int", "width: float"),
    "a name of a type": ("Names = dict[str, int]", "Names = dict[str, float] | None\nPairs = list[Names]"),
    "a log": ('print(f"negative: {found}")', 'print("oh", found, flush=True)'),
    "no log": ('        print(f"negative: {found}")\n', ""),
    "another log": (
        "    return found * scale",
        '    if scale > 2:\n        warnings.warn("x")\n    return found * scale',
    ),
    "what an error says": ('ValueError(f"{box}: {found}") from None', 'ValueError("negative") from error'),
    "imports for checkers": ("    from pathlib import Path", "    from os import PathLike"),
    "an import that is not used": ("import json", "import math"),
    "where ours comes from": ("wordmill.text.charset", "wordmill.pictures.other"),
    "an order": ("LONGEST = 25  # characters\n\n\n@dataclass", "@dataclass"),
}

ANOTHER = {
    "a number": ("scale: float = 1.0", "scale: float = 2.0"),
    "an operator": ("found * scale", "found + scale"),
    "a field's default": ("height: int = 1", "height: int = 2"),
    "a field's name": ("width: int", "depth: int"),
    "a field's kind": ("CORNERS: ClassVar[int]", "CORNERS: int"),
    "a constant": ("LONGEST = 25", "LONGEST = 26"),
    "what is raised": ("raise ValueError", "raise KeyError"),
    "whether it is raised": ("found < 0", "found <= 0"),
    "a decorator": ("@dataclass\n", ""),
    "where another's comes from": ("from dataclasses import dataclass", "from attrs import dataclass"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_means_nothing_changes_no_key(change: tuple[str, str]) -> None:
    assert change[0] in MODULE
    other = MODULE.replace(*change)
    if change[1] == "@dataclass":
        other += "\n\nLONGEST = 25\n"
    assert meanings(other) == meanings(MODULE)


@pytest.mark.parametrize("change", ANOTHER.values(), ids=ANOTHER)
def test_what_decides_changes_the_definition_that_it_stands_in(change: tuple[str, str]) -> None:
    assert change[0] in MODULE
    before, now = meanings(MODULE), meanings(MODULE.replace(*change))
    assert len([name for name in before if before[name] != now[name]]) == 1


def test_a_module_has_a_meaning_for_each_definition() -> None:
    assert set(meanings(MODULE)) == {"Box", "area", "LONGEST"}
    assert set(meanings("import os\n\nos.environ['A'] = '1'\ncv2.setNumThreads(1)\nx, y = 1, 2\n")) == {"", "x"}
    assert meanings("f()\ng()\n") != meanings("g()\nf()\n")


def test_a_local_import_and_one_of_the_module_mean_the_same() -> None:
    within = "def f():\n    import math\n\n    return math.pi\n"
    assert meanings(within) == meanings("import math\n\n\ndef f():\n    return math.pi\n")
    assert meanings(within) != meanings("import cmath as math\n\n\ndef f():\n    return math.pi\n")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Write the files of a project of its own."""
    monkeypatch.setattr(keys, "ROOT", tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return write


def test_a_key_has_the_modules_of_a_package_the_files_and_the_versions_that_it_names(
    house: Callable[[str, str], None],
) -> None:
    house("wordmill/text/a.py", "A = 1\n")
    house("wordmill/text/__init__.py", "")
    house("wordmill/text/deep/b.py", "B = 1\n")
    house("wordmill/store/c.py", "C = 1\n")
    house("wordmill/text/table.tsv", "x\ty\n")
    named = Ingredients(
        code=("wordmill.text",), data=("wordmill/text/table.tsv",), distributions=("numpy", "none-such")
    )
    found, before = named.found(), named.digest()
    assert list(found["code"]) == ["A"]
    assert found["distributions"] == {"numpy": version_of("numpy"), "none-such": ""}
    house("wordmill/text/deep/b.py", "B = 2\n")
    house("wordmill/store/c.py", "C = 2\n")
    assert named.digest() == before
    house("wordmill/text/a.py", "# nothing\n")
    house("wordmill/text/moved.py", "A = 1\n")
    assert named.digest() == before
    house("wordmill/text/table.tsv", "x\tz\n")
    assert named.digest() != before
    assert changed_ingredients(found, named.found()) == ["wordmill/text/table.tsv"]
    house("wordmill/text/moved.py", "A = 2\n")
    assert changed_ingredients(found, named.found()) == ["A", "wordmill/text/table.tsv"]
    with pytest.raises(ValueError, match=r"wordmill.nowhere: no such module or package below "):
        Ingredients(code=("wordmill.nowhere",)).digest()


def test_another_version_is_another_key_and_both_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    named = Ingredients(distributions=("torch", "onnxruntime"))
    monkeypatch.setattr(keys, "version_of", {"torch": "2.13.0", "onnxruntime": ""}.__getitem__)
    found, before = named.found(), named.digest()
    monkeypatch.setattr(keys, "version_of", {"torch": "2.14.0", "onnxruntime": "1.29"}.__getitem__)
    assert named.digest() != before
    assert changed_ingredients(found, named.found()) == ["onnxruntime none and 1.29", "torch 2.13.0 and 2.14.0"]


def test_the_version_of_cann_is_what_its_installers_have_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        monkeypatch.delenv(name, raising=False)
    version_of.cache_clear()
    assert version_of(CANN) == ""
    version_of.cache_clear()
    (tmp_path / "aarch64-linux").mkdir()
    for package in ("toolkit", "ops"):
        text = f"package_name=Ascend-cann-{package}\nversion=8.5.0\ninnerversion=V100\narch=aarch64\n"
        (tmp_path / "aarch64-linux" / f"ascend_{package}_install.info").write_text(text)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert version_of(CANN) == "ops 8.5.0, toolkit 8.5.0"
    version_of.cache_clear()


def test_a_machine_is_its_processor_and_the_threads_that_it_lends() -> None:
    name, _, threads = machine().rpartition(", ")
    assert name
    assert int(threads.removesuffix(" threads")) > 0


@pytest.mark.usefixtures("busy_collector")
def test_meanings_are_read_in_several_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(meanings, [MODULE] * 40))
    assert found == [meanings(MODULE)] * 40


@pytest.mark.usefixtures("busy_collector")
def test_imports_are_followed_in_several_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(source_files, [["components.fetch"]] * 6))
    assert found == [source_files(["components.fetch"])] * 6
