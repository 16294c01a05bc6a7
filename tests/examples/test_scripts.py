"""The scripts in Python, run as they stand on a recogniser of fresh weights that writes some text."""

import ast
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.local import services
from tests.components.export.exported import png
from tests.mlflow_server import mlflow_uri  # noqa: F401 (a fixture)
from tests.wordmill.inference.conftest import images, maker  # noqa: F401 (fixtures)
from tests.wordmill.inference.maker import CRNN, Maker
from wordmill.pictures.image import Picture
from wordmill.store import tracking

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def script(name: str) -> Callable[..., Any]:
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


def test_pictures_are_read_by_a_file_and_by_a_registered_model(
    maker: Callable[..., Maker],  # noqa: F811
    images: list[Picture],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, folder = maker(CRNN), tmp_path / "pictures"
    made.decide(made.exported())
    texts, confidences = made.expected(images)
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(png(image))
    name = f"wordmill-{made.recipe}"
    model = tracking.download_model(tracking.find_version(name, "champion"), tmp_path / "models")
    capsys.readouterr()

    script("use_registered_model")(f"{name}@champion", [str(path) for path in paths])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == f"{name}@champion reads 0123456789abcdefghijklmnopqrstuvwxyz"
    assert [row.split("\t")[:2] for row in rows] == [[str(path), text] for path, text in zip(paths, texts, strict=True)]
    assert all(row.split("\t")[3].startswith("or ") for row in rows)

    (folder / "9.png").write_bytes(b"no picture")
    assert script("read_pictures")(model, folder) == 1
    *lines, last = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  perhaps")]
    assert last.startswith("9.png: not a whole picture")
    expected = zip(paths, texts, confidences, strict=True)
    assert lines == [f"{path.name}: {text} ({sure:.1%})" for path, text, sure in expected]


def test_the_program_with_a_registered_model_knows_mlflow_alone() -> None:
    tree = ast.parse((EXAMPLES / "use_registered_model.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"argparse", "os", "sys", "mlflow.pyfunc"}
    assert [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)] == ["mlflow.exceptions"]


@pytest.mark.parametrize("name", ["read_pictures", "tune_own_words", "use_registered_model"])
def test_without_arguments_a_script_says_what_it_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(name, [], monkeypatch) == 2
    assert capsys.readouterr().err.startswith(f"usage: {name}.py [-h] ")


def test_a_wrong_path_ends_a_script_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ended("read_pictures", ["/nonexistent", str(tmp_path)], monkeypatch)
    assert str(said).startswith("error: /nonexistent: no such file or folder, expected an exported file")
    (tmp_path / "file").touch()
    assert f"'{tmp_path}/file/parts'" in str(ended("tune_own_words", [f"{tmp_path}/file/parts"], monkeypatch))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said = ended("use_registered_model", ["wordmill-none/1", "word.png"], monkeypatch)
    assert str(said).startswith("error: MLFLOW_TRACKING_URI is not set")


def ended(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script as a program and return what it ends with."""
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return end.value.code


def test_own_words_are_drawn_once_and_given_to_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def tune(options: Any) -> int:
        asked.append(options)
        run = tmp_path / "state" / "runs" / f"quickstart-tune-{len(asked)}"
        run.mkdir(parents=True)
        row = {"name": "parts_test", "own": True, "before": 0.125, "now": 0.75 + len(asked) / 100}
        (run / "tune.json").write_text(json.dumps({"gains": [row]}), encoding="utf-8")
        return 0

    monkeypatch.setattr("pipelines.local.own.tuning.tune", tune)
    monkeypatch.setattr(services, "STATE", tmp_path / "state")
    main, folder = script("tune_own_words"), tmp_path / "parts"
    assert main(folder, "--recipe", "crnn_vgg7") == 0
    assert (asked[0].data, asked[0].recipe) == (str(folder), "crnn_vgg7")
    assert capsys.readouterr().out == "parts_test: own words, 12.5% read right before, 76.0% now\n"
    lines = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ")[0] for line in lines] == sorted(path.name for path in folder.glob("*.png"))
    assert (len(lines), len({line.split(" ")[1] for line in lines})) == (300, 300)
    assert main(folder) == 0
    assert (folder / "labels.txt").read_text(encoding="utf-8").splitlines() == lines
