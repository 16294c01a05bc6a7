"""The completion scripts: bash's is run by bash, which completes as for a person who presses the key."""

import subprocess

import pytest

from pipelines.building import recipe_names
from pipelines.cli import GROUPS, main

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


def test_fish_is_told_each_verb_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    lines = script("fish", capsys).splitlines()
    verbs = [line.split(" -a ")[1].split()[0] for line in lines if "__fish_use_subcommand" in line]
    assert sorted(verbs) == sorted(name for names in GROUPS.values() for name in names)
    of_run = "complete -c wordmill -n '__fish_seen_subcommand_from run'"
    assert f"{of_run} -l device -a 'cpu cuda npu' -r -d 'what to train on, cpu by default'" in lines
    assert f"{of_run} -l smoke -d 'the same graph on few pictures, never champion'" in lines
    assert f"{of_run} -a '{RECIPES}'" in lines
