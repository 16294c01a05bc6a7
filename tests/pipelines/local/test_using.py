import os
import sys
from pathlib import Path

import pytest

from pipelines.cli import main
from wordmill.models import table

ROOT = Path(__file__).resolve().parents[3]


class ReplacedError(Exception):
    """This process would have become another program."""


def test_the_service_is_a_program_of_its_own_which_no_folder_of_the_users_stands_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, object] = {}

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        found.update(path=path, command=command, search=environment["PYTHONPATH"])
        raise ReplacedError

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ReplacedError):
        main(["serve", "--model", str(tmp_path / "model.onnx"), "--port", "80"])
    command = [sys.executable, "-P", "-m", "components.serve", str(tmp_path), "--host", "127.0.0.1", "--port", "80",
               "--threads", "0"]  # fmt: skip
    assert found == {"path": sys.executable, "command": command, "search": str(ROOT)}


def test_models_are_those_of_all_recipes_or_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(table, "main", asked.append)
    recipes = ROOT / "pipelines" / "recipes"
    for words in ([], ["rare_r34", "my.yaml", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["models", *words])
        assert ended.value.code == 0
    every = [str(path) for path in sorted(recipes.glob("*.yaml"))]
    assert asked == [[*every, "--format", "table"], [str(recipes / "rare_r34.yaml"), "my.yaml", "--format", "json"]]
