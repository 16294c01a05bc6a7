"""Doubles of CANN's atc and MindSpore Lite's converter_lite: they record what they are told, and behave as bidden."""

import os
import shlex
from pathlib import Path

import pytest

# ATC_DOES and LITE_DOES say what they do.
ATC = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/told"
for argument in "$@"; do
  case "$argument" in
    --output=*) output="${argument#--output=}";;
    --model=*) cp "${argument#--model=}" "$(dirname "$0")/";;
  esac
done
case "$ATC_DOES" in
  fail) echo "EE1001: The argument is invalid. Reason: Soc version [$(date +%s)] is invalid"; exit 1;;
  nothing) echo "ATC run success"; exit 0;;
  empty) : > "$output.om"; exit 0;;
  hang) sleep 60;;
  suffix) echo converted > "${output}_linux_aarch64.om";;
  *) echo "ATC run success"; echo converted > "$output.om";;
esac
"""

CONVERTER_LITE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/told"
for argument in "$@"; do case "$argument" in --outputFile=*) output="${argument#--outputFile=}";; esac; done
case "$LITE_DOES" in
  fail) echo "CONVERT RESULT FAILED:-1 Can't find OpAdapter for LSTM"; exit 1;;
  nothing) echo "CONVERT RESULT SUCCESS:0"; exit 0;;
  *) echo "CONVERT RESULT SUCCESS:0"; echo converted > "$output.mindir";;
esac
"""


class Double:
    """A program on PATH that stands in for another."""

    def __init__(self, name: str, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    @property
    def commands(self) -> list[dict[str, str]]:
        """The options of every call so far."""
        lines = (self.folder / "told").read_text(encoding="utf-8").splitlines()
        return [dict(word.removeprefix("--").split("=", 1) for word in shlex.split(line)) for line in lines]
