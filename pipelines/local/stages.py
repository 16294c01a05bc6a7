"""Stages of a local run: each a process of its own, forked from one that has imported what all of them need.

kfp.local starts a Python for each stage, which imports kfp, boto3 and MLflow anew: of a run that finds everything
finished that is nearly all of its time. Python's own fork server stands in for it.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipelines.places import ROOT
from wordmill.recipe.frameworks import prepended
from wordmill.store.children import die_with_parent

_context = get_context("forkserver")


@cache
def start_warm() -> None:
    """Start the process that stages fork from, which imports beside its caller: once, whoever asks first."""
    os.environ["PYTHONPATH"] = prepended("PYTHONPATH", ROOT)
    # Each stage imports the script that pip has made again, as it does not what `python -m` runs: by then it is there.
    started = [] if sys.modules["__main__"].__spec__ else ["pipelines.cli"]
    _context.set_forkserver_preload(["pipelines.local.warm", *started])
    forkserver.ensure_running()


def run_forked(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Run a stage's compiled command, `sh -ec` with a text, the stage's source and arguments; return its exit code.

    What it says is printed as it comes, and what it leaves among temporary files goes with it, however it ends. It
    stands in for kfp's own function (2.17).
    """
    source, *arguments = full_command[3:]
    with tempfile.TemporaryDirectory(prefix="wordmill-", ignore_cleanup_errors=True) as folder:
        environment = os.environ | (env_vars or {}) | {"TMPDIR": folder}
        code = call(_execute, source, arguments, environment=environment)
    print("\n")
    return code


def call(work: Callable[..., None], *arguments: Any, environment: dict[str, str]) -> int:
    """Call a module's function in a process with an environment, print what it says and return its exit code."""
    reader, writer = _context.Pipe(duplex=False)
    process = _context.Process(target=_begin, args=(writer, environment, work, arguments))
    process.start()
    writer.close()
    try:
        with open(reader.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
            for line in lines:
                print(line, end="")
    finally:
        reader.close()
        process.join()
    return process.exitcode or 0


def _begin(
    output: Connection, environment: dict[str, str], work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    die_with_parent()  # the process that all are forked from ends with the run's
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # as TMPDIR has it
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", buffering=1, closefd=False)
    output.close()
    work(*arguments)


def _execute(source: str, arguments: list[str]) -> None:
    """Run a component's function as its container does, by kfp's executor."""
    from kfp.dsl.executor_main import executor_main

    module = Path(tempfile.mkdtemp(), "ephemeral_component.py")  # which goes with the stage
    module.write_text(source, encoding="utf-8")
    sys.argv = ["kfp", "--component_module_path", str(module), *arguments]
    executor_main()
