"""`wordmill completion SHELL`: the script by which a shell completes verbs, options and what they may be.

It is written out, rather than asked for at every key: a shell does not wait for a Python to start.
"""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.building import recipe_names
from pipelines.output import COMMAND

SHELLS = ("bash", "zsh", "fish")

# Words of an option, else of a verb: its options where one is begun, else what may stand there. Paths are the shell's.
BASH = """\
_wordmill() {
  local word verb="" now="${COMP_WORDS[COMP_CWORD]}" words=""
  for word in "${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"; do
    case "$word" in -*) ;; *) verb="$word"; break ;; esac
  done
  case "$verb ${COMP_WORDS[$((COMP_CWORD - 1))]}" in
%s
    *)
      case "$verb" in
%s
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$now"))
}
complete -o default -F _wordmill wordmill
"""
ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """What a verb takes: an option's flags, none of what stands by its place, and the words that it may be."""

    flags: tuple[str, ...]
    words: tuple[str, ...]
    closed: bool  # nothing else than these words, if there are any
    has_value: bool
    told: str


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    """Give what a verb's parser takes."""
    for action in parser._actions:
        words = recipe_names() if action.dest == "recipe" else action.choices or ()
        yield Argument(flags=tuple(action.option_strings), words=tuple(map(str, words)), closed=bool(action.choices),
                       has_value=action.nargs != 0, told=(action.help or "").replace("%%", "%"))  # fmt: skip


def script(shell: str, verbs: dict[str, argparse.ArgumentParser]) -> str:
    """Return the script of a shell: bash's serves zsh too, which reads it by its own bashcompinit."""
    known = {name: list(arguments_of(parser)) for name, parser in verbs.items()}
    if shell == "fish":
        told = {name: parser.description or "" for name, parser in verbs.items()}
        return "".join(f"{line}\n" for line in _fish(known, told))
    return (ZSH if shell == "zsh" else "") + BASH % ("\n".join(_values(known)), "\n".join(_places(known)))


def _values(known: dict[str, list[Argument]]) -> Iterator[str]:
    """Give bash's cases of options that take a value."""
    for verb, arguments in known.items():
        for one in arguments:
            if one.flags and one.has_value:
                before = "|".join(f'"{verb} {flag}"' for flag in one.flags)
                yield f"    {before}) words={shlex.quote(' '.join(one.words))} ;;"


def _places(known: dict[str, list[Argument]]) -> Iterator[str]:
    """Give bash's cases of verbs."""
    for verb, arguments in {"": [], **known}.items():
        flags = " ".join(flag for one in arguments for flag in one.flags) or "--help --version"
        words = " ".join(known if not verb else [word for one in arguments if not one.flags for word in one.words])
        yield f'        "{verb}") case "$now" in -*) words="{flags}" ;; *) words="{words}" ;; esac ;;'


def _fish(known: dict[str, list[Argument]], told: dict[str, str]) -> Iterator[str]:
    for option in ("help", "version"):
        yield f"complete -c {COMMAND} -n __fish_use_subcommand -l {option}"
    for verb, arguments in known.items():
        yield f"complete -c {COMMAND} -f -n __fish_use_subcommand -a {verb} -d {shlex.quote(told[verb])}"
        for one in arguments:
            line = f"complete -c {COMMAND} -n '__fish_seen_subcommand_from {verb}'"
            line += "".join(f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in one.flags)
            line += f" -a {shlex.quote(' '.join(one.words))}" if one.words else ""
            line += f" -{'x' if one.words and one.closed else 'r'}" if one.flags and one.has_value else ""
            line += " -f" if one.words and one.closed and not one.flags else ""
            if one.flags or one.words:
                yield f"{line} -d {shlex.quote(one.told)}" if one.flags else line


def add_completion_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""

    def write(options: argparse.Namespace) -> int:
        print(script(options.shell, dict(verbs.choices)), end="")
        return 0

    parser = verbs.add_parser("completion", help="write a shell's completion: source <(wordmill completion bash)")
    parser.add_argument("shell", choices=SHELLS, help="for fish: wordmill completion fish | source")
    parser.set_defaults(verb=write)
