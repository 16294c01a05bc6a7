"""The command line's help, which people read in a terminal of 80 columns."""

from pathlib import Path

import pytest

from pipelines import cli
from pipelines.cli import GROUPS, command_line, main

VERBS = [name for names in GROUPS.values() for name in names]


def helped(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), *((verb,) for verb in VERBS)], ids=str)
def test_help_fits_80_columns(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = helped(*words, capsys=capsys, monkeypatch=monkeypatch)
    assert text.startswith("usage: python -m pipelines ")
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_list_has_every_verb_once_and_a_verb_says_what_it_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [line.split()[0] for line in helped(capsys=capsys, monkeypatch=monkeypatch).splitlines()
              if line.startswith("  ") and line.split()[0] in VERBS]  # fmt: skip
    parser = command_line()
    (verbs,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    assert listed == VERBS
    assert sorted(VERBS) == sorted(verbs)
    run = helped("run", capsys=capsys, monkeypatch=monkeypatch)
    assert "\n\nRun the pipeline on this machine.\n\n" in run


def test_an_installed_command_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.sys, "argv", ["/usr/bin/wordmill"])
    assert command_line().format_usage() == "usage: wordmill [-h] [--version] VERB ...\n"


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"wordmill 0.1.0, {Path(cli.__file__).parents[1]}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "--last", "-3"],
        ["run", "quickstart", "--processes", "-2"],
        ["tune", "words", "--processes", "-2"],
        ["read", "words", "--alternatives", "-2"],
        ["serve", "--threads", "-2"],
        ["serve", "--port", "-2"],
    ],
)
def test_no_verb_takes_a_negative_count(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line().parse_args(words)
    assert ended.value.code == 2
    assert f"argument {words[-2]}: found '{words[-1]}', expected a whole number from " in capsys.readouterr().err
