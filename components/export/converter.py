"""Running a converter that is a program of its own: its log is kept, its code and its file are both looked at."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from components.export.formats import NotMadeError
from wordmill.recipe.frameworks import prepended
from wordmill.store.artifacts import ROOT
from wordmill.store.children import tied

LOG = "log.txt"  # what all of a format's conversions print, as it is stored beside the files
LIMIT_S = 1800  # a converter that takes longer hangs
LAST_LINES = 10  # of its log in an error

# What a converter's texts mean here, by what its log holds; the first that is found is told.
ADVICE = {
    "Soc version": "the chip is not known here: WORDMILL_SOC_VERSION is 'Ascend' and the name that npu-smi info shows, "
                   "and from CANN 8.5 on the chip's own ops package must be installed where the file is made",
    "E10001": "atc refuses a value: compare the option that it names with its documentation for this version of CANN",
    "E10002": "atc refuses the input's shape: leave export.gears out, for one file per batch size",
    "E10003": "atc refuses an option: this version of CANN does not know it, or not with the others",
    "E10014": "atc refuses an option: this version of CANN does not know it, or not with the others",
    "E10054": "atc misses an option's value: an empty variable, or WORDMILL_SOC_VERSION with a space in it",
    "EZ3002": "the chip has no such operator: try a lower export.opset",
    "EZ9999": "an operator cannot be compiled for the chip: try a lower export.opset",
    "E19999": "CANN failed within itself: source its set_env.sh, and take the ops package of the same version",
    "OpAdapter": "the chip has no such operator: a recurrent layer must come from an ONNX file",
    "error while loading shared libraries": "the converter does not find its libraries: source CANN's set_env.sh, and "
                                            "for MindSpore Lite put its lib folders on LD_LIBRARY_PATH",
}  # fmt: skip


def find_tool(name: str, export_format: str, advice: str) -> str:
    """Return the path of a program on PATH; NotMadeError with the advice how to install it."""
    if found := shutil.which(name):
        return found
    raise NotMadeError(f"format {export_format}: {name} is not on PATH: {advice}")


def run_converter(command: list[str], stem: Path, suffix: str, log: Path) -> Path:
    """Run a converter that is to write the file `stem` and `suffix`, and return that; NotMadeError with what to do.

    It runs in the file's folder and is told names in it alone: atc and converter_lite take no space in a path, nor a
    letter of most scripts. What it prints is appended to the log, behind the command. A file that was there before
    does not count.
    """
    for old in stem.parent.glob(f"{stem.name}*{suffix}"):
        old.unlink()
    what = _run(command, stem.parent, log)
    # On another processor's system atc adds that system's name to the file's.
    made = [path for path in sorted(stem.parent.glob(f"{stem.name}*{suffix}")) if path.stat().st_size]
    if what or not made:
        raise _error(what or f"ended well but wrote no {stem.name}{suffix}", command, log)
    return made[0]


def _run(command: list[str], folder: Path, log: Path) -> str:
    """Run a command in a folder and return what went wrong, empty for nothing."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        variables = os.environ | {"PYTHONPATH": prepended("PYTHONPATH", ROOT)}
        process = subprocess.Popen(
            tied(command), cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"did not end within {LIMIT_S} s and was killed"
        finally:
            with suppress(ProcessLookupError):  # all of its processes have ended by themselves
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"ended with code {code}" if code else ""


def _error(what: str, command: list[str], log: Path) -> NotMadeError:
    """Return an error whose first line says what went wrong and what to do; what was run and printed follows."""
    tool, line = Path(command[0]).name, f"$ {' '.join(command)}\n"
    told = log.read_text(encoding="utf-8", errors="replace").rpartition(line)[2]
    advice = next((f": {meaning}" for text, meaning in ADVICE.items() if text in told), "")
    last = told.splitlines()[-LAST_LINES:]
    return NotMadeError("\n".join([f"{tool} {what}{advice}", line.rstrip(), *last]))
