import argparse
import json
from pathlib import Path

import pytest

from pipelines.cli import command_line
from pipelines.local import scanning
from wordmill.text.charset import load_charset


def test_labels_are_counted_by_the_characters_that_a_charset_lacks() -> None:
    found, examples = scanning.missing(["Café", "CAFÉ", "née-é", "word"], load_charset("lower36"))
    assert found == {"": 3, "é": 3, "-": 1}
    assert examples == {"é": ["Café", "CAFÉ", "née-é"], "-": ["née-é"]}


def options(tmp_path: Path) -> argparse.Namespace:
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "gt.txt").touch()
    return command_line().parse_args(["charset", str(folder), "--labels", "gt.txt", "-o", str(tmp_path / "c.txt")])


@pytest.mark.parametrize(
    ("labels", "file", "change"),
    [
        (["Straße 1", "ä"], "ß\nä\n", "data.charset=lower36+{path} data.space=true train.start_charset=union"),
        (["a b"], None, "data.space=true train.start_charset=union"),
        (["ab"], None, None),
    ],
)
def test_what_takes_the_missing_characters_in_is_written_and_said(
    labels: list[str], file: str | None, change: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(scanning, "data_set", lambda options: ("words", None))
    monkeypatch.setattr(scanning, "read_labels", lambda name, entry: labels)
    assert scanning.scan_labels(options(tmp_path)) == 0
    path = tmp_path / "c.txt"
    assert (path.read_text(encoding="utf-8") if path.exists() else None) == file
    out = capsys.readouterr().out
    assert (f'SET="{change.format(path=path)}"' in out) if change else ("SET" not in out)


def test_a_program_gets_every_character_and_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def labels(name: str, entry: object) -> list[str]:
        print("fetch words: done")
        return ["Straße", "ab", "Füße"]

    monkeypatch.setattr(scanning, "data_set", lambda options: ("words", None))
    monkeypatch.setattr(scanning, "read_labels", labels)
    asked = options(tmp_path)
    asked.json = True
    assert scanning.scan_labels(asked) == 0
    path = tmp_path / "c.txt"
    assert json.loads(capsys.readouterr().out) == {
        "data": "words", "labels": 3, "outside": 2, "file": str(path),
        "characters": [{"character": "ß", "labels": 2, "examples": ["Straße", "Füße"]},
                       {"character": "ü", "labels": 1, "examples": ["Füße"]}],
        "set": [f"data.charset=lower36+{path}", "train.start_charset=union"],
    }  # fmt: skip


def test_a_path_that_a_list_would_take_apart_goes_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    told = scanning.setting("small", ["data.charset=lower36+/my words (2)/c.txt", "data.space=true"])
    changed = "--set 'data.charset=lower36+/my words (2)/c.txt' --set data.space=true"
    assert told == f".venv/bin/python -m pipelines run small {changed}"
    monkeypatch.setattr("sys.argv", ["/usr/bin/wordmill"])
    assert scanning.setting("small", ["data.space=true"]) == "wordmill run small --set data.space=true"
