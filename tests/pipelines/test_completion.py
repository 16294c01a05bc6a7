"""The completion scripts, each run by its shell, which completes as for a person who presses the key."""

import io
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.building import recipe_names
from pipelines.cli import GROUPS, main
from tests.waiting import LIMIT_S

PRESSED = """
while IFS= read -r line; do
  read -ra COMP_WORDS <<<"$line"
  [[ "$line" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _wordmill
  echo "${COMPREPLY[*]}"
done
"""
RECIPES = " ".join(recipe_names())
# What is typed -> what it may go on with; nothing: the shell offers files.
TYPED = {
    "wordmill re": "read",
    "wordmill sched": "schedule schedules",
    "wordmill --v": "--version",
    "wordmill run q": "quickstart",
    "wordmill run ": RECIPES,
    "wordmill run quickstart --device ": "cpu cuda npu",
    "wordmill run quickstart --run": "--runner",
    "wordmill run quickstart --runner d": "docker",
    "wordmill run --set ": "",
    "wordmill read words.png --recipe rare_r34_": "rare_r34_ch rare_r34_tps",
    "wordmill read ": "",
    "wordmill evaluate words --label-format p": "paddleocr",
    "wordmill completion ": "bash zsh fish",
}


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_bash_completes_verbs_options_and_what_they_may_be(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    head, found, text = script(shell, capsys).partition("_wordmill() {")
    assert head == ("autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" if shell == "zsh" else "")
    typed = "".join(f"{line}\n" for line in TYPED)
    done = subprocess.run(
        ["bash", "-c", found + text + PRESSED], input=typed, capture_output=True, text=True, check=True
    )
    assert dict(zip(TYPED, done.stdout.split("\n"), strict=False)) == TYPED
    assert done.stderr == ""


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_completes_what_a_person_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = tmp_path / "setup.zsh"
    echo = 'wordmill() { print -r -- "ran:${(j: :)@}:" }\n'  # what is typed is echoed too, without this word
    setup.write_text(script("zsh", capsys).replace("&& compinit &&", "&& compinit -D -u &&") + echo)  # asks nothing
    terminal, end = pty.openpty()
    shell = subprocess.Popen(["zsh", "-f", "-i"], stdin=end, stdout=end, stderr=end, cwd=tmp_path, close_fds=True)
    os.close(end)
    with os.fdopen(terminal, "rb+", buffering=0) as zsh:
        zsh.write(f". {setup}; wordmill ready\n".encode())
        assert heard(zsh) == "ready"
        for line, expected in TYPED.items():
            if expected and " " not in expected:
                zsh.write(f"{line}\t\n".encode())
                assert heard(zsh) == f"{line.partition(' ')[2].rpartition(' ')[0]} {expected}".strip()
        zsh.write(b"exit\n")
        assert shell.wait(LIMIT_S) == 0


def heard(terminal: io.FileIO) -> str:
    """Return what a shell's next command was given; it reads until the shell says so."""
    text = ""
    while not (found := re.search("ran:(.*):", text)):
        text += terminal.read(1).decode(errors="replace")
    return found[1]


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes_what_a_person_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = "".join(f"echo {line!r}; complete -C {line!r} | string replace -r '\\t.*' ''\n" for line in TYPED)
    setup = script("fish", capsys) + "function wordmill; end\n" + typed + "true"
    done = subprocess.run(["fish", "--no-config", "-c", setup], cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)},
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stderr == ""
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line in TYPED:
            found[line] = []
        else:
            found[next(reversed(found))].append(line)
    assert {line: set(words) for line, words in found.items()} == {
        line: set(words.split()) for line, words in TYPED.items()
    }


def test_fish_is_told_each_verb_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    lines = script("fish", capsys).splitlines()
    verbs = [line.split(" -a ")[1].split()[0] for line in lines if "__fish_use_subcommand -a" in line]
    assert sorted(verbs) == sorted(name for names in GROUPS.values() for name in names)
    of_run = "complete -c wordmill -n '__fish_seen_subcommand_from run'"
    assert f"{of_run} -l device -a 'cpu cuda npu' -x -d 'what to train on, cpu by default'" in lines
    assert f"{of_run} -l smoke -d 'the same graph on few pictures, never champion'" in lines
    assert f"{of_run} -a '{RECIPES}'" in lines
